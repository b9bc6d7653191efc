//! How the program starts, and how it refuses to.

use std::time::Duration;

use crate::support::desk::client;
use crate::support::tandem::{House, Tandem};
use crate::support::wait::until;

#[tokio::test]
async fn a_process_that_may_open_too_few_files_refuses_to_start_and_names_the_number() {
    let mut tandem = Tandem::prepare(House::new().files(64), 20);
    tandem.launch();
    until("it gives up", || async { (!tandem.log().is_empty()).then_some(()) }).await;
    let mut ended = false;
    for _ in 0..200 {
        ended = !tandem.is_running();
        if ended {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = tandem.log();
    assert!(ended, "{log}");
    // 100 calls of 4 descriptors each, and 256 for everything else.
    assert!(log.contains("may open 64 files") && log.contains("need 656"), "{log}");
    assert!(log.contains("LimitNOFILE=656") && log.contains("ulimit -n 656"), "{log}");
    // The twin: with as many as it named it starts (and stops when it is told to).
    let mut enough = Tandem::prepare(House::new().files(656), 20);
    enough.up().await;
    let ready = client().get(format!("http://{}/readyz", enough.web)).send().await.unwrap();
    assert_eq!(ready.status(), 200, "{}", ready.text().await.unwrap());
    enough.signal(rustix::process::Signal::TERM);
    for _ in 0..200 {
        if !enough.is_running() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not stop on SIGTERM");
}
