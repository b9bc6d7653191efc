//! How the program starts, and how it refuses to.

use std::time::Duration;

use crate::support::desk::client;
use crate::support::peers::{need, stage};
use crate::support::sipp::Sipp;
use crate::support::sound::write_tone;
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

fn announcement(sound: &str) -> String {
    format!(
        "[[route]]\nname = \"Announcement\"\nwhen = {{ from = \"trunk:*\" }}\n\
         do = [{{ play = \"{sound}\" }}, {{ hang_up = \"normal\" }}]\n"
    )
}

#[tokio::test]
async fn a_sound_and_a_dialplan_laid_down_while_it_runs_are_played_after_sighup() {
    if !need(&["sipp"]) {
        return;
    }
    let _place = stage().await;
    let gateway = "name = \"gsm-1\"\nkind = \"gateway\"\npassword = \"secret-gsm-1\"\ndigest = [\"MD5\"]\n";
    let house =
        House::new().trunk(gateway).tone("short.wav", 400.0, 200).dialplan(&announcement("short.wav"));
    let mut tandem = Tandem::prepare(house, 20);
    tandem.users("supervisor", &["chief"]);
    tandem.up().await;
    let port = tandem.ports.at(0);
    let register = ["-m", "1", "-s", "gsm-1", "-au", "gsm-1", "-ap", "secret-gsm-1"];
    Sipp::start(&tandem, "register", port, &register).succeeds(30).await;
    // A dialplan that names a sound nobody has is refused, and the old one goes on.
    std::fs::write(tandem.path("dialplans/10-scene.toml"), announcement("long.wav")).unwrap();
    tandem.signal(rustix::process::Signal::HUP);
    until("it is refused", || async { tandem.log().contains("not reloaded").then_some(()) }).await;
    write_tone(&tandem.path("dialplans/sounds/long.wav"), 400.0, 1_500);
    tandem.signal(rustix::process::Signal::HUP);
    until("it is read", || async { tandem.log().contains("were read again").then_some(()) }).await;
    let words = ["-m", "1", "-s", "gsm-1", "-key", "prefix", "67"];
    Sipp::start(&tandem, "gateway_hears_bye", port, &words).succeeds(30).await;
    let chief = tandem.log_in("chief").await;
    let call = &chief.history(1).await[0];
    let at = |key: &str| call[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let lasted = at("ended_at").as_millisecond() - at("arrived_at").as_millisecond();
    assert!(lasted >= 1_400, "the new sound of 1.5 s was played in {lasted} ms: {call}");
    assert!(!tandem.log().contains("not in the store"), "{}", tandem.log());
}
