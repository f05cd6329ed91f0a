use proptest::prelude::*;

use super::*;

fn kinds(sql: &str) -> Vec<(TokenKind, &str)> {
    tokens(sql)
        .expect("well-formed")
        .into_iter()
        .filter(|token| token.kind != TokenKind::Whitespace)
        .map(|token| (token.kind, token.text))
        .collect()
}

fn statements(sql: &str) -> Vec<&str> {
    split_statements(sql).expect("well-formed").into_iter().map(|statement| statement.text).collect()
}

#[test]
#[rustfmt::skip]
fn every_kind_of_token_is_told_apart() {
    use TokenKind::*;
    let cases: &[(&str, &[(TokenKind, &str)])] = &[
        ("a -- b\n c", &[(Word, "a"), (LineComment, "-- b"), (Word, "c")]),
        ("-- a\rdrop", &[(LineComment, "-- a"), (Word, "drop")]),
        ("/* a /* b */ c */ d", &[(BlockComment, "/* a /* b */ c */"), (Word, "d")]),
        ("'it''s; -- x'", &[(Text, "'it''s; -- x'")]),
        (r"'a\' b", &[(Text, r"'a\'"), (Word, "b")]),
        (r"E'a\'b' c", &[(Text, r"E'a\'b'"), (Word, "c")]),
        ("U&'\\0061' uescape '!'", &[(Text, "U&'\\0061'"), (Word, "uescape"), (Text, "'!'")]),
        ("u&\"x\" x'1F' B'01' n'é'", &[(QuotedName, "u&\"x\""), (Text, "x'1F'"), (Text, "B'01'"), (Text, "n'é'")]),
        ("'a'\n  -- b\n 'c' 'd'", &[(Text, "'a'\n  -- b\n 'c'"), (Text, "'d'")]),
        ("'a' /* b\n */ 'c'", &[(Text, "'a'"), (BlockComment, "/* b\n */"), (Text, "'c'")]),
        ("$$a;'$$ $1 $x$ $$ $x$", &[(DollarText, "$$a;'$$"), (Parameter, "$1"), (DollarText, "$x$ $$ $x$")]),
        ("$a$ $b$a$ a$$b $", &[(DollarText, "$a$ $b$a$"), (Word, "a$$b"), (Symbol, "$")]),
        ("\"a\"\"b;\".\"c\"", &[(QuotedName, "\"a\"\"b;\""), (Symbol, "."), (QuotedName, "\"c\"")]),
        ("1 1.5 .5 1e-9 1_000 0xFf 1..2", &[(Number, "1"), (Number, "1.5"), (Number, ".5"), (Number, "1e-9"), (Number, "1_000"), (Number, "0xFf"), (Number, "1"), (Symbol, ".."), (Number, "2")]),
        ("a->>'b'::int", &[(Word, "a"), (Operator, "->>"), (Text, "'b'"), (Symbol, "::"), (Word, "int")]),
        ("a=-1 b@-1", &[(Word, "a"), (Operator, "="), (Operator, "-"), (Number, "1"), (Word, "b"), (Operator, "@-"), (Number, "1")]),
        ("*/* c */--", &[(Operator, "*"), (BlockComment, "/* c */"), (LineComment, "--")]),
        ("größe\u{a0}x (;)", &[(Word, "größe\u{a0}x"), (Symbol, "("), (Semicolon, ";"), (Symbol, ")")]),
    ];
    for (sql, expected) in cases {
        assert_eq!(kinds(sql), *expected, "{sql}");
    }
}

#[test]
fn what_is_not_closed_is_named_with_its_start() {
    let cases = [
        ("a /* b /* c */", LexFault::OpenComment, 2),
        ("a 'b''", LexFault::OpenText, 2),
        (r"a e'b\'", LexFault::OpenText, 2),
        ("é \"b", LexFault::OpenName, 3),
        ("a $x$ $$ $y$", LexFault::OpenDollarText, 2),
        ("a (b; c", LexFault::OpenParenthesis, 2),
        ("a; b)", LexFault::StrayParenthesis, 4),
    ];
    for (sql, fault, offset) in cases {
        assert_eq!(split_statements(sql), Err(LexError { fault, offset }), "{sql}");
    }
}

#[test]
fn statements_end_at_semicolons_that_are_not_inside_anything() {
    assert_eq!(statements(" ;; -- a\n ; /* b */"), Vec::<&str>::new());
    assert_eq!(statements("a ';' ; -- b\n c /* d; */ e -- f\n"), ["a ';'", "c /* d; */ e"]);
    assert_eq!(
        statements("create rule r as on insert to t do (a; b); c"),
        ["create rule r as on insert to t do (a; b)", "c"]
    );
    let function = "create function f() returns int language sql begin atomic select case when true then 1 end; select 2; end";
    assert_eq!(statements(&format!("{function}; c")), [function, "c"]);
    assert_eq!(statements("begin; c; end; d"), ["begin", "c", "end", "d"]);
}

#[test]
fn places_count_lines_and_characters_from_one() {
    let text = "é b\r\ncd";
    let lines = Lines::of(text);
    let places: Vec<(u32, u32)> = [0, 2, 3, 6, 7, 99]
        .into_iter()
        .map(|at| lines.place(at))
        .map(|place| (place.line, place.column))
        .collect();
    assert_eq!(places, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]);
}

#[test]
fn the_normal_form_reads_well() {
    let sql = "INSERT  INTO Fine ( fine_id,amount ) -- why\nVALUES(event . stream_id,( event.data ->> 'Amount' )::Numeric [] , \"X\".*) ;";
    let expected = "insert into fine(fine_id, amount) values(event.stream_id, (event.data ->> 'Amount')::numeric[], \"X\".*);";
    assert_eq!(normalise(sql), expected);
}

/// Tokens that can stand beside each other in any order once white space parts them.
fn any_token() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z_é][a-zA-Z0-9_$]{0,5}",
        "\"[a-z;'\\-]{1,4}\"",
        "[0-9]{1,4}",
        Just("1.5e3".to_owned()),
        "(\\$q\\$[a-z;']{0,5}\\$q\\$)",
        "\\$[1-9]",
        "[-+*/<>=~!@#%^&|?]",
        prop::sample::select(vec![
            "(", ")", "[", "]", ",", ".", ";", ":", "::", "..", ":=", "->>", "<=", "||", "$"
        ])
        .prop_map(str::to_owned),
    ]
}

fn any_gap() -> impl Strategy<Value = String> {
    "( |\t|\r\n|\n| /\\* [a-z';\\$\"]{0,5} \\*/ | --[a-z';\\$\"]{0,5}\n){1,3}"
}

proptest! {
    #[test]
    fn tokens_put_together_are_the_text(sql in "(?s)([-/*'\"$;().:=a-eE0-9 \n\r\\\\é@]|.){0,60}") {
        let mut together = String::new();
        for token in scan::Scanner::new(&sql) {
            match token {
                Ok(token) => {
                    prop_assert_eq!(token.offset, together.len());
                    prop_assert!(!token.text.is_empty());
                    together.push_str(token.text);
                }
                Err(error) => {
                    prop_assert_eq!(error.offset, together.len());
                    together.push_str(&sql[error.offset..]);
                }
            }
        }
        prop_assert_eq!(together, sql);
    }

    #[test]
    fn the_normal_form_of_a_normal_form_is_itself(sql in "(?s)([-/*'\"$;().:=a-eE0-9 \n\r\\\\é@\\[\\]]|.){0,60}") {
        let once = normalise(&sql);
        prop_assert_eq!(normalise(&once), once);
    }

    #[test]
    fn comments_and_white_space_do_not_change_the_normal_form(
        parts in prop::collection::vec((any_token(), any_gap(), prop::option::of("'[a-z;$ -]{0,4}'")), 0..12)
    ) {
        let plain: String = parts.iter().map(|(token, _, text)| format!("{token} {} ", text.as_deref().unwrap_or_default())).collect();
        let gaps: String =
            parts.iter().map(|(token, gap, text)| format!("{gap}{token}{gap}{}{gap}", text.as_deref().unwrap_or_default())).collect();
        prop_assert_eq!(normalise(&plain), normalise(&gaps));
        let count = |sql: &str| scan::Scanner::new(sql).flatten().filter(Token::is_significant).count();
        prop_assert_eq!(count(&normalise(&plain)), count(&plain));
    }

    #[test]
    fn statements_stand_where_they_say(sql in "[a-c;'() \n-]{0,40}") {
        for statement in split_statements(&sql).into_iter().flatten() {
            prop_assert_eq!(&sql[statement.offset..statement.offset + statement.text.len()], statement.text);
            prop_assert_eq!(statement.text.trim(), statement.text);
        }
    }
}
