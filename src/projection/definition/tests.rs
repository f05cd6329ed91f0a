use super::*;

const FINES: &str = r#"/* foldd
version = 1
categories = ["fine", "appeal"]
*/
-- @tables
create table fine (fine_id text primary key, paid numeric not null default 0);
create index on fine (paid);

-- @on Create Fine
insert into fine (fine_id) values (event.stream_id);

-- @on Payment
-- @on Refund
update fine set paid = paid + (event.data->>'paymentAmount')::numeric where fine_id = event.stream_id;
"#;

fn definition(text: &str) -> Definition {
    let file = ProjectionFile::parse("fines", "fines.sql", text).expect("well-formed");
    Definition::of_file(&file, &file.settings).expect("complete")
}

fn changed(from: &str, to: &str) -> Definition {
    assert!(FINES.contains(from), "{from}");
    definition(&FINES.replace(from, to))
}

#[test]
fn what_does_not_matter_leaves_the_identity_alone() {
    let same = [
        ("version = 1", "version = 2\non_error = \"skip_event\"\npartitions = 4"),
        (r#"["fine", "appeal"]"#, r#"["appeal", "fine"]"#),
        ("create table fine", "-- the fines\nCREATE   TABLE\n fine /* one each */"),
        ("-- @on Payment\n-- @on Refund", "-- @on Refund\n-- @on Payment"),
        ("create index on fine (paid);", ";create index on fine(paid)"),
        ("-- @on Create Fine", "-- @test t\nselect 1;\n-- @expect 1\n-- @on Create Fine"),
    ];
    for (from, to) in same {
        let other = changed(from, to);
        assert!(definition(FINES).same_as(&other), "{to}\n{}", definition(FINES).diff(&other));
        assert_eq!(definition(FINES).diff(&other), "");
    }
}

#[test]
fn stacking_and_order_of_entries_do_not_matter_but_order_of_batches_does() {
    let front = "/* foldd\nall = true\n*/\n";
    let one = definition(&format!("{front}-- @on A\n-- @on B\ndelete from t;\n-- @on C\ndelete from u"));
    let two = definition(&format!(
        "{front}-- @on C\ndelete from u;\n-- @on B\ndelete from t;\n-- @on A\nDELETE from t"
    ));
    assert!(one.same_as(&two), "{}", one.diff(&two));
    let one = definition(&format!("{front}-- @batch\ndelete from t;\n-- @batch\ndelete from u"));
    let two = definition(&format!("{front}-- @batch\ndelete from u;\n-- @batch\ndelete from t"));
    assert!(!one.same_as(&two));
}

#[test]
fn what_matters_changes_the_identity_and_shows_in_the_diff() {
    let different = [
        (r#"["fine", "appeal"]"#, r#"["fine"]"#, "-  \"appeal\"\n"),
        (
            "default 0",
            "default 1",
            "-    paid numeric not null default 0);\n+    paid numeric not null default 1);\n",
        ),
        ("-- @on Refund\n", "", "-on \"Payment\", \"Refund\"\n+on \"Payment\"\n"),
        (
            "'paymentAmount'",
            "'payment amount'",
            "+    set paid = paid + (event.data ->> 'payment amount')::numeric\n",
        ),
        ("create index on fine (paid);", "", "-  create index\n-    on fine(paid);\n"),
    ];
    for (from, to, lines) in different {
        let other = changed(from, to);
        let diff = definition(FINES).diff(&other);
        assert!(!definition(FINES).same_as(&other), "{to}");
        assert!(diff.starts_with("--- applied\n+++ fines.sql\n@@"), "{diff}");
        assert!(diff.contains(lines), "{diff}");
    }
}

#[test]
fn a_definition_comes_back_from_the_database_as_it_went() {
    let rust = Settings { all: Some(true), ..Settings::default() };
    let rust =
        Definition::of_rust("balances", "foldd.toml", &rust, Some("create table b ()")).expect("complete");
    let batch = definition("/* foldd\nall = true\n*/\n-- @batch\ndelete from t");
    for stored in [definition(FINES), rust, batch] {
        let json = serde_json::to_string(&stored).expect("serializes");
        assert_eq!(serde_json::from_str::<Definition>(&json).expect("deserializes"), stored, "{json}");
    }
}

#[test]
fn the_summary_counts() {
    let expected =
        "3 event types handled one event at a time, categories appeal, fine, 2 statements for tables";
    assert_eq!(definition(FINES).summary(), expected);
    let batch = definition("/* foldd\nall = true\n*/\n-- @batch\ndelete from t");
    assert_eq!(batch.summary(), "1 statement for each batch, all categories");
}

#[test]
fn categories_may_come_from_the_configuration_but_must_come_from_somewhere() {
    let file = ProjectionFile::parse("fines", "fines.sql", "/* foldd */\n-- @batch\ndelete from t")
        .expect("well-formed");
    let error = Definition::of_file(&file, &file.settings).expect_err("no categories");
    assert_eq!(
        error.to_string(),
        "projection fines has no `categories`, neither in its file nor in the configuration; \
         name them, as in `categories = [\"order\"]`, or write `all = true`"
    );
    let config = Settings { categories: Some(vec!["b".into(), "a".into()]), ..Settings::default() };
    let definition = Definition::of_file(&file, &file.settings.overridden_by(&config)).expect("complete");
    assert_eq!(definition.categories, Categories::Listed(vec!["a".into(), "b".into()]));
}
