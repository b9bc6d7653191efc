#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]
//! The store against real files.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::fact::{CallResult, Cause, Direction, Fact, Fields, What};
use crate::orders::KeptState;
use crate::orders::core::OrderMessage;
use crate::terms::{CallId, CardId, Epoch, Number, OperatorName, Secret};

const NOW: i64 = 1_772_357_400_000;

fn config(folder: &Path, max_pages: u32) -> StoreConfig {
    let url = format!("sqlite:{}", folder.join("db").join("tandem.db").display());
    StoreConfig { url, data_dir: folder.to_owned(), max_pages }
}

async fn opened() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&config(folder.path(), 0)).await.unwrap();
    (folder, store)
}

fn spawn(store: &Store) -> (Writer, JoinHandle<()>) {
    let (writer, run) = store.writer();
    (writer, tokio::spawn(run))
}

fn call(n: u128) -> CallId {
    CallId(Uuid::from_u128(n))
}

fn card(n: u128) -> CardId {
    CardId(Uuid::from_u128(10_000 + n))
}

fn fact(seq: u64, n: u128, what: What) -> Fact {
    Fact { seq, epoch: Epoch(1), at: NOW + seq as i64, call: Some(call(n)), what }
}

fn arrived() -> What {
    What::Arrived {
        direction: Direction::In,
        caller: Number::new("+380671234567"),
        called: Number::new("+380441234567"),
        line: Number::new("+380441234567"),
        trunk: Some("gsm-1".into()),
        operator: None,
    }
}

fn card_opened(n: u128) -> What {
    What::CardOpened {
        card: card(n),
        caller: Number::new("+380671234567"),
        line: Number::new("+380441234567"),
        trunk: Some("gsm-1".into()),
        queue: Some("orders".into()),
        operator: "anna".into(),
    }
}

fn fields() -> Fields {
    [("pickup".to_owned(), "Main st. 1".to_owned())].into()
}

fn submitted(n: u128) -> What {
    What::CardSubmitted { card: card(n), operator: "anna".into(), fields: fields() }
}

fn ended(result: CallResult) -> What {
    What::Ended { result, cause: Cause::default(), by: "caller".into(), wait_ms: 4_000, talk_ms: 30_000 }
}

/// A whole call with an order: 7 facts.
fn story(n: u128, seq: u64) -> Vec<Fact> {
    let queue: crate::terms::QueueName = "orders".into();
    let operator: OperatorName = "anna".into();
    let whats = [
        arrived(),
        What::Queued { queue: queue.clone(), priority: 0 },
        What::Assigned { queue: queue.clone(), operator: operator.clone() },
        card_opened(n),
        What::Answered { operator: Some(operator), trunk: None, queue: Some(queue), wait_ms: 4_000 },
        submitted(n),
        ended(CallResult::Answered),
    ];
    whats.into_iter().enumerate().map(|(index, what)| fact(seq + index as u64, n, what)).collect()
}

async fn stored(writer: &Writer, seq: u64) {
    let mut stored = writer.stored();
    let reached = stored.wait_for(|stored| stored.seq >= seq);
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("not stored in time").unwrap();
}

async fn count(store: &Store, table: &'static str) -> i64 {
    let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
    sqlx::query_scalar(sql).fetch_one(&store.inner.reads).await.unwrap()
}

#[tokio::test]
async fn a_call_with_an_order_is_written_once_however_often_it_is_appended() {
    let (_folder, store) = opened().await;
    let (writer, run) = spawn(&store);
    for _ in 0..3 {
        writer.append(story(1, 1));
    }
    // The same facts under other numbers, as a restored engine may say them.
    writer.append(story(1, 101));
    stored(&writer, 107).await;
    let page = store.history(&CdrQuery::default()).await.unwrap();
    assert_eq!((page.total, page.rows.len()), (1, 1));
    let cdr = &page.rows[0].cdr;
    assert_eq!((cdr.result, cdr.wait_ms, cdr.talk_ms), (CallResult::Answered, 4_000, 30_000));
    assert_eq!((cdr.operator.clone(), cdr.card), (Some("anna".into()), Some(card(1))));
    let letters = store.waiting(0, 100).await.unwrap();
    let paths: Vec<&str> = letters.iter().map(|letter| letter.path.as_str()).collect();
    assert_eq!(paths, ["/calls", "/calls", "/orders", "/calls"]);
    assert_eq!(letters[2].key, card(1).to_string());
    assert!(letters[2].body.contains("+380671234567") && letters[2].body.contains("Main st. 1"));
    assert_eq!(count(&store, "open_calls").await, 0);
    drop(writer);
    run.await.unwrap();
}

/// Every row of the books that facts make, but for the letters' places.
async fn books(store: &Store) -> Vec<String> {
    let sql = "SELECT 'fact ' || epoch || seq || at || ifnull(call, '') || body FROM facts
               UNION ALL SELECT 'open ' || call || cdr FROM open_calls
               UNION ALL SELECT 'cdr ' || json_array(call, direction, caller, called, line, trunk, queue,
                 operator, arrived_at, answered_at, ended_at, wait_ms, talk_ms, result, q850, sip, words,
                 ended_by, card, typeof(arrived_at), typeof(q850), typeof(caller)) FROM cdr
               UNION ALL SELECT 'card ' || card || state || fields FROM cards
               UNION ALL SELECT 'letter ' || json_array(key, lane, path, body, card, made_at, state)
                 FROM (SELECT * FROM outbox ORDER BY id)";
    sqlx::query_scalar(sql).fetch_all(&store.inner.reads).await.unwrap()
}

#[tokio::test]
async fn facts_written_together_make_the_same_rows_as_one_by_one() {
    let mut lively: Vec<Fact> = (1..6).flat_map(|n| story(n, n as u64 * 7 - 6)).collect();
    // Calls side by side, one that is told again from its beginning, one that says things after its end.
    lively.extend(story(1, 36));
    lively.push(fact(43, 2, What::Queued { queue: "late".into(), priority: 0 }));
    lively.push(fact(44, 9, arrived()));
    lively.push(fact(45, 10, ended(CallResult::Failed)));
    lively.push(fact(46, 9, What::Held));
    lively.push(fact(47, 9, What::EarlyMedia { trunk: "gsm-2".into() }));
    let mut mixed = lively.clone();
    mixed.sort_by_key(|fact| fact.seq % 7);
    for (index, fact) in mixed.iter_mut().enumerate() {
        fact.seq = index as u64 + 1;
    }
    // A restored engine gives numbers again: the same words, then others.
    let mut again = lively[..20].to_vec();
    again[15].what = What::Queued { queue: "other".into(), priority: 1 };
    for facts in [lively.clone(), mixed, [lively.clone(), again].concat()] {
        let mut made = Vec::new();
        for group in [1, 3, 50, 1_000] {
            let (_folder, store) = opened().await;
            let mut connection = sqlite::connect(&store.inner.path, 0).await.unwrap();
            for facts in facts.chunks(group) {
                if group == 1 {
                    project::apply(&mut connection, &facts[0]).await.unwrap();
                } else {
                    flock::apply(&mut connection, facts).await.unwrap();
                }
            }
            sqlite::close(connection).await;
            made.push(books(&store).await);
        }
        assert!(made[0].len() > 60, "{}", made[0].len());
        for others in &made[1..] {
            assert_eq!(&made[0], others);
        }
    }
}

#[tokio::test]
async fn measurements_are_not_kept_but_count_as_stored() {
    let (_folder, store) = opened().await;
    let (writer, _run) = spawn(&store);
    let quality = crate::fact::Quality::default();
    writer.append(vec![fact(9, 1, What::MediaQuality { leg: crate::terms::LegId(1), quality })]);
    stored(&writer, 9).await;
    assert_eq!(count(&store, "facts").await, 0);
}

#[tokio::test]
async fn a_killed_node_loses_nothing_it_reported_and_its_calls_are_closed_as_lost() {
    let (folder, store) = opened().await;
    assert_eq!(store.start().await.unwrap(), Epoch(1));
    let (writer, run) = spawn(&store);
    writer.append(story(1, 1)[..5].to_vec());
    let updated = What::CardUpdated { card: card(1), fields: fields() };
    writer.append(vec![
        fact(6, 1, updated),
        fact(7, 2, arrived()),
        fact(8, 2, card_opened(2)),
        fact(9, 3, arrived()),
    ]);
    stored(&writer, 9).await;
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    drop((writer, store));

    let store = Store::open(&config(folder.path(), 0)).await.unwrap();
    assert_eq!(store.start().await.unwrap(), Epoch(2));
    let loaded = store.load(NOW + 60_000, &BTreeSet::from([call(3)])).await.unwrap();
    assert_eq!(loaded.last_seq, 9);
    let lost: Vec<CallId> = loaded.lost.iter().map(|cdr| cdr.call).collect();
    assert_eq!(lost, [call(1), call(2)]);
    // The empty card of the caller nobody answered went with him; the other one is still being typed.
    let drafts = |loaded: &Loaded| -> Vec<CardId> {
        loaded.cards.iter().filter(|kept| kept.state == KeptState::Draft).map(|kept| kept.card).collect()
    };
    assert_eq!((drafts(&loaded), loaded.cards.len()), (vec![card(1)], 2));
    assert_eq!(loaded.cards[0].fields, fields());
    let again = store.load(NOW + 70_000, &BTreeSet::from([call(3)])).await.unwrap();
    assert_eq!((again.lost.len(), drafts(&again).len()), (0, 1));
    let later = store.load(NOW + 10_000_000, &BTreeSet::from([call(3)])).await.unwrap();
    assert_eq!(later.cards.len(), 1, "closed cards are remembered for an hour");
    let page =
        store.history(&CdrQuery { result: Some(CallResult::Lost), ..CdrQuery::default() }).await.unwrap();
    assert_eq!(page.total, 2);
}

#[tokio::test]
async fn a_full_database_sends_facts_to_the_journal_and_takes_them_in_later() {
    let (folder, store) = opened().await;
    let (writer, run) = spawn(&store);
    writer.append(story(1, 1));
    stored(&writer, 7).await;
    drop(writer);
    run.await.unwrap();
    // From now on the database may not grow.
    store.set_max_pages(1);
    let (writer, run) = spawn(&store);
    for n in 2..200_u64 {
        writer.append(story(u128::from(n), n * 10));
    }
    stored(&writer, 1_996).await;
    assert!(writer.health().borrow().journaling, "{:?}", writer.health().borrow());
    assert!(std::fs::metadata(folder.path().join("facts.journal")).unwrap().len() > 10_000);
    assert!(store.history(&CdrQuery::default()).await.unwrap().total < 199);
    store.set_max_pages(0);
    let mut health = writer.health();
    let back = health.wait_for(|health| !health.journaling);
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("the journal stays").unwrap();
    assert_eq!(store.history(&CdrQuery::default()).await.unwrap().total, 199);
    assert_eq!(store.outbox().await.unwrap().depth, 199 * 4);
    assert_eq!(std::fs::metadata(folder.path().join("facts.journal")).unwrap().len(), 0);
    drop((writer, health));
    run.await.unwrap();
}

#[tokio::test]
async fn a_locked_database_and_a_kill_leave_the_rest_to_the_next_start() {
    let (folder, store) = opened().await;
    let (writer, run) = spawn(&store);
    let mut lock = store.inner.writes.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("INSERT INTO meta (key, value) VALUES ('x', 1)").execute(&mut *lock).await.unwrap();
    writer.append(story(1, 1));
    stored(&writer, 7).await;
    assert!(writer.health().borrow().journaling);
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    drop(lock);
    drop((writer, store));
    let store = Store::open(&config(folder.path(), 0)).await.unwrap();
    assert_eq!(store.history(&CdrQuery::default()).await.unwrap().total, 1);
    assert_eq!(store.waiting(0, 10).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_second_process_on_the_folder_leaves_the_journal_alone() {
    let (folder, store) = opened().await;
    assert!(store.is_alone());
    let line = "not a fact of this process\n";
    std::fs::write(folder.path().join("facts.journal"), line).unwrap();
    let second = Store::open(&config(folder.path(), 0)).await.unwrap();
    assert!(!second.is_alone());
    assert_eq!(std::fs::read_to_string(folder.path().join("facts.journal")).unwrap(), line);
    drop((store, second));
    assert!(Store::open(&config(folder.path(), 0)).await.unwrap().is_alone());
    assert_eq!(std::fs::read_to_string(folder.path().join("facts.damaged")).unwrap(), line);
}

#[tokio::test]
async fn nothing_is_reported_while_database_and_journal_both_fail() {
    let (folder, store) = opened().await;
    // A folder where the journal file should be.
    std::fs::remove_file(folder.path().join("facts.journal")).unwrap();
    std::fs::create_dir(folder.path().join("facts.journal")).unwrap();
    store.set_max_pages(1);
    let (writer, _run) = spawn(&store);
    for n in 0..100_u64 {
        writer.append(story(u128::from(n), n * 10 + 1));
    }
    let mut health = writer.health();
    tokio::time::timeout(Duration::from_secs(20), health.wait_for(|health| health.stuck))
        .await
        .unwrap()
        .unwrap();
    let before = writer.stored().borrow().seq;
    assert!(before < 997, "{before}");
    std::fs::remove_dir(folder.path().join("facts.journal")).unwrap();
    store.set_max_pages(0);
    stored(&writer, 997).await;
    let mut health = writer.health();
    let well = health.wait_for(|health| !health.stuck && !health.journaling);
    tokio::time::timeout(Duration::from_secs(20), well).await.unwrap().unwrap();
    assert_eq!(store.history(&CdrQuery::default()).await.unwrap().total, 100);
}

#[tokio::test]
async fn a_full_queue_loses_facts_loudly_and_acknowledges_nothing_after_them() {
    let (_folder, store) = opened().await;
    let (writer, run) = store.writer();
    for seq in 1..=MAX_QUEUE as u64 {
        writer.append(vec![fact(seq, 1, What::Digit { leg: crate::terms::LegId(1) })]);
    }
    let next = MAX_QUEUE as u64 + 1;
    writer.append(vec![fact(next, 1, submitted(1))]);
    assert_eq!(writer.lost(), 1);
    let run = tokio::spawn(run);
    stored(&writer, next - 1).await;
    writer.append(vec![fact(next + 1, 1, submitted(2))]);
    let stored = writer.stored();
    drop(writer);
    run.await.unwrap();
    assert_eq!(stored.borrow().seq, next - 1);
    assert_eq!(store.waiting(0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_discarded_card_makes_no_order() {
    let (_folder, store) = opened().await;
    let (writer, _run) = spawn(&store);
    let discarded = What::CardDiscarded { card: card(1), reason: "fake".into() };
    writer.append(vec![fact(1, 1, card_opened(1)), fact(2, 1, discarded), fact(3, 1, submitted(1))]);
    stored(&writer, 3).await;
    assert_eq!(store.waiting(0, 10).await.unwrap(), []);
    let cards = store.load(NOW, &BTreeSet::new()).await.unwrap().cards;
    assert_eq!(cards[0].state, KeptState::Discarded { reason: "fake".into() });
}

#[tokio::test]
async fn a_letter_is_delivered_or_dies_once_and_may_be_revived() {
    let (_folder, store) = opened().await;
    let (writer, _run) = spawn(&store);
    writer.append(story(1, 1));
    stored(&writer, 7).await;
    let letters = store.waiting(0, 10).await.unwrap();
    store.delivered(letters[2].id, Some("17"), NOW).await.unwrap();
    store.refused(letters[0].id, 422, "no such line", NOW).await.unwrap();
    store.delivered(letters[0].id, None, NOW).await.unwrap();
    let view = store.outbox().await.unwrap();
    assert_eq!((view.depth, view.dead), (2, 1));
    assert_eq!(store.dead_letters(10).await.unwrap()[0].answer, "no such line");
    let row = store.record(call(1)).await.unwrap().unwrap();
    assert_eq!(row.order.as_deref(), Some("17"));
    assert!(store.revive(letters[0].id).await.unwrap());
    assert!(!store.revive(letters[2].id).await.unwrap());
    assert_eq!(store.outbox().await.unwrap().depth, 3);
    assert!(store.forget(NOW + 1_000_000).await.unwrap() > 0);
    assert_eq!(store.outbox().await.unwrap().depth, 3);
}

#[tokio::test]
async fn history_is_asked_by_time_number_operator_queue_and_result() {
    let (_folder, store) = opened().await;
    let (writer, _run) = spawn(&store);
    for n in 1..=5_u64 {
        writer.append(story(u128::from(n), n * 10));
    }
    stored(&writer, 56).await;
    let all = CdrQuery::default;
    let table = [
        (CdrQuery { from: Some(NOW + 30), ..all() }, 3),
        (CdrQuery { from: Some(NOW + 30), to: Some(NOW + 40), ..all() }, 1),
        (CdrQuery { number: Some("067 123-45-67".into()), ..all() }, 5),
        (CdrQuery { number: Some("%".into()), operator: Some("boris".into()), ..all() }, 0),
        (CdrQuery { number: Some("999".into()), ..all() }, 0),
        (CdrQuery { queue: Some("orders".into()), operator: Some("anna".into()), ..all() }, 5),
        (CdrQuery { result: Some(CallResult::Abandoned), ..all() }, 0),
    ];
    for (query, total) in table {
        assert_eq!(store.history(&query).await.unwrap().total, total, "{query:?}");
    }
    let second = store.history(&CdrQuery { page: 1, page_size: 2, ..all() }).await.unwrap();
    let calls: Vec<CallId> = second.rows.iter().map(|row| row.cdr.call).collect();
    assert_eq!((calls, second.total), (vec![call(3), call(2)], 5));
}

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn anna() -> Account {
    Account {
        name: "anna".into(),
        role: Role::Operator,
        queues: vec!["orders".into()],
        skills: vec!["english".into()],
        disabled: false,
    }
}

#[tokio::test]
async fn only_the_right_password_of_an_enabled_account_fits() {
    let (_folder, store) = opened().await;
    store.add_account(&anna(), secret("correct horse")).await.unwrap();
    assert!(matches!(store.add_account(&anna(), secret("correct horse")).await, Err(StoreError::Exists(_))));
    assert!(matches!(store.set_password("anna", secret("short")).await, Err(StoreError::Unfit(_))));
    let odd = Account { name: "a b".into(), ..anna() };
    assert!(matches!(store.add_account(&odd, secret("correct horse")).await, Err(StoreError::Unfit(_))));
    assert_eq!(store.verify("anna", secret("correct horse")).await.unwrap(), Some(anna()));
    for (name, password) in
        [("anna", "wrong horse"), ("nobody", "correct horse"), ("nobody", "nobody's password")]
    {
        assert_eq!(store.verify(name, secret(password)).await.unwrap(), None, "{name}");
    }
    assert!(store.set_password("anna", secret("battery staple")).await.unwrap());
    assert_eq!(store.verify("anna", secret("correct horse")).await.unwrap(), None);
    assert!(store.set_disabled("anna", true).await.unwrap());
    assert_eq!(store.verify("anna", secret("battery staple")).await.unwrap(), None);
    assert!(!store.set_disabled("nobody", true).await.unwrap());
    assert_eq!(store.accounts().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_session_lives_twelve_hours_after_its_last_use() {
    let (_folder, store) = opened().await;
    store.add_account(&anna(), secret("correct horse")).await.unwrap();
    let (token, session) = store.create_session(&anna(), 0).await.unwrap();
    assert_eq!(session.expires_at, SESSION_MS);
    let used = store.session(token.expose(), SESSION_MS - 1).await.unwrap().unwrap();
    assert_eq!((used.id.clone(), used.expires_at), (session.id.clone(), 2 * SESSION_MS - 1));
    assert_eq!(store.sessions(SESSION_MS).await.unwrap(), [used]);
    assert_eq!(store.session(token.expose(), 2 * SESSION_MS).await.unwrap(), None);
    assert_eq!(store.session("guess", 0).await.unwrap(), None);
    assert_eq!(store.session(&session.id, 0).await.unwrap(), None, "the hash opens nothing");
    store.delete_session(token.expose()).await.unwrap();
    assert_eq!(store.session(token.expose(), 0).await.unwrap(), None);
    let (token, _) = store.create_session(&anna(), 0).await.unwrap();
    store.set_disabled("anna", true).await.unwrap();
    assert_eq!(store.session(token.expose(), 0).await.unwrap(), None);
}

#[tokio::test]
async fn an_account_keeps_its_newest_sessions_only() {
    let (_folder, store) = opened().await;
    store.add_account(&anna(), secret("correct horse")).await.unwrap();
    for now in 0..30 {
        store.create_session(&anna(), now).await.unwrap();
    }
    let sessions = store.sessions(100).await.unwrap();
    assert_eq!(sessions.len(), 20);
    assert!(sessions.iter().all(|session| session.expires_at >= SESSION_MS + 10));
}

#[tokio::test]
async fn the_pair_secret_is_made_once_and_may_be_replaced() {
    let (_folder, store) = opened().await;
    let first = store.pair_secret().await.unwrap();
    assert_eq!(first.expose().len(), 32);
    assert!(store.pair_secret().await.unwrap() == first);
    let other = Secret::new(vec![7_u8; 32]);
    store.set_pair_secret(&other).await.unwrap();
    assert!(store.pair_secret().await.unwrap() == other);
}

#[tokio::test]
async fn a_database_of_a_newer_program_and_a_foreign_address_are_refused() {
    let (folder, store) = opened().await;
    sqlx::raw_sql("PRAGMA user_version = 99").execute(&store.inner.writes).await.unwrap();
    assert!(matches!(Store::open(&config(folder.path(), 0)).await, Err(StoreError::Newer { found: 99, .. })));
    let foreign = StoreConfig { url: "oracle://scott:tiger@db".into(), ..config(folder.path(), 0) };
    let Err(error) = Store::open(&foreign).await else { panic!("opened") };
    assert!(!error.to_string().contains("tiger"), "{error}");
}

fn order(pickup: &str) -> OrderMessage {
    OrderMessage {
        source: "call".into(),
        call_id: Some(call(1)),
        caller: "+380671234567".into(),
        line: "+380441234567".into(),
        trunk: None,
        queue: None,
        operator: Some("anna".into()),
        at: "2026-03-01T09:30:00.000Z".into(),
        fields: [("pickup".to_owned(), pickup.to_owned())].into(),
    }
}

#[tokio::test]
async fn the_embedded_core_makes_one_order_of_a_key_and_remembers_its_customers() {
    let (_folder, store) = opened().await;
    let CoreAnswer::Done(first) = store.core_create("k1", &order("Main st. 1")).await.unwrap() else {
        panic!()
    };
    assert_eq!(
        store.core_create("k1", &order("Other st. 2")).await.unwrap(),
        CoreAnswer::Again(first.clone())
    );
    for (key, pickup) in [("k2", "Park 5"), ("k3", "Main st. 1")] {
        store.core_create(key, &order(pickup)).await.unwrap();
    }
    store.core_set_customer("+380671234567", "Olena", true).await.unwrap();
    let customer = store.core_customer("+380671234567").await.unwrap();
    assert_eq!((customer.name.as_str(), customer.blocked, customer.orders.len()), ("Olena", true, 3));
    assert_eq!(customer.addresses, ["Main st. 1", "Park 5"]);
    assert_eq!(store.core_customer("+10").await.unwrap(), crate::orders::core::Customer::default());
    let id = first.id.parse().unwrap();
    let CoreAnswer::Done(gone) = store.core_discard(id, "d1", "fake").await.unwrap() else { panic!() };
    assert_eq!((gone.state.as_str(), gone.reason.as_str()), ("discarded", "fake"));
    assert!(matches!(store.core_discard(id, "d1", "other").await.unwrap(), CoreAnswer::Again(_)));
    assert_eq!(store.core_discard(99, "d2", "fake").await.unwrap(), CoreAnswer::Unknown);
}
