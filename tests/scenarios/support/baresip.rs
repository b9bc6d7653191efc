//! baresip as a GSM gateway: registers with digest, answers by itself, plays a tone, records what it hears.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::peers::Kept;
use super::tandem::Tandem;
use super::wait::until;

/// What the caller's voice sounds like.
pub const CALLER_HZ: u32 = 700;

/// A running gateway.
#[derive(Debug)]
pub struct Baresip {
    _process: Kept,
    folder: PathBuf,
    wire: OwnedWriteHalf,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Baresip {
    /// Starts a gateway in Tandem's folder and waits until it is registered as this user.
    pub async fn start(tandem: &Tandem, user: &str, password: &str) -> Self {
        let folder = tandem.path("baresip");
        std::fs::create_dir_all(folder.join("rec")).unwrap();
        // baresip hangs up when its file ends: longer than any call of a scene.
        super::sound::write_tone(&folder.join("voice.wav"), f64::from(CALLER_HZ), 300_000);
        // The port after that of SIP is taken too (by its TLS).
        let (sip, control, rtp) = (tandem.ports.at(30), tandem.ports.at(33), tandem.ports.at(40));
        let place = folder.display();
        let config = format!(
            "poll_method epoll\nsip_listen {}:{sip}\nsip_trans_def udp\ncall_local_timeout 120\ncall_max_calls 4\n\
             audio_player aubridge,sink\naudio_source aufile,{place}/voice.wav\naudio_alert aufile,/dev/null\n\
             ausrc_srate 8000\nauplay_srate 8000\nausrc_channels 1\nauplay_channels 1\naudio_txmode thread\n\
             ausrc_format s16\nauplay_format s16\nauenc_format s16\naudec_format s16\nrtp_ports {rtp}-{}\nrtcp_mux no\n\
             jitter_buffer_delay 5-10\nmodule_path /usr/lib/baresip/modules\nmodule g711.so\nmodule aufile.so\n\
             module aubridge.so\nmodule sndfile.so\nmodule_tmp account.so\nmodule_app menu.so\nmodule_app ctrl_tcp.so\n\
             ctrl_tcp_listen 127.0.0.1:{control}\nsnd_path {place}/rec\n",
            tandem.sip.ip(),
            rtp + 30
        );
        std::fs::write(folder.join("config"), config).unwrap();
        let account = format!(
            "<sip:{user}@tandem.local;transport=udp>;auth_user={user};auth_pass={password};\
             outbound=\"sip:{};transport=udp\";answermode=auto;audio_codecs=PCMA/8000/1,PCMU/8000/1;regint=60;ptime=20\n",
            tandem.sip
        );
        std::fs::write(folder.join("accounts"), account).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new("baresip");
        command.arg("-f").arg(&folder).stdout(Stdio::from(log.try_clone().unwrap())).stderr(Stdio::from(log));
        let process = Kept::spawn(&mut command);
        let (mut read, wire) =
            until("baresip takes orders", || async { TcpStream::connect(("127.0.0.1", control)).await.ok() })
                .await
                .into_split();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        tokio::spawn(async move {
            let (mut bytes, mut part) = (Vec::new(), [0; 4_096]);
            while let Ok(length @ 1..) = read.read(&mut part).await {
                bytes.extend_from_slice(&part[..length]);
                while let Some(message) = take_netstring(&mut bytes) {
                    kept.lock().unwrap().push(message);
                }
            }
        });
        Self { _process: process, folder, wire, heard }
    }

    async fn order(&mut self, command: &str, words: &str) {
        let text = json!({"command": command, "params": words, "token": "t"}).to_string();
        self.wire.write_all(format!("{}:{text},", text.len()).as_bytes()).await.unwrap();
    }

    /// Places a call to a number of Tandem.
    pub async fn dial(&mut self, number: &str) {
        self.order("dial", &format!("sip:{number}@tandem.local")).await;
    }

    /// Ends its call.
    pub async fn hang_up(&mut self) {
        self.order("hangup", "").await;
    }

    /// How many events of this type it told.
    pub fn count(&self, kind: &str) -> usize {
        self.heard.lock().unwrap().iter().filter(|event| event["type"] == kind).count()
    }

    /// Waits until it told so many of this type.
    pub async fn told(&self, kind: &str, count: usize) {
        until(&format!("baresip tells {kind} {count} times"), || async {
            (self.count(kind) >= count).then_some(())
        })
        .await;
    }

    /// What it heard in its call number `index` (from 0), decoded.
    pub fn recording(&self, index: usize) -> Vec<f64> {
        let entries = std::fs::read_dir(self.folder.join("rec")).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.to_string_lossy().ends_with("-dec.wav"));
        files.sort();
        files.get(index).map(|file| super::sound::read(file)).unwrap_or_default()
    }
}

fn take_netstring(bytes: &mut Vec<u8>) -> Option<Value> {
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let length: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    let end = colon + 1 + length;
    if bytes.len() <= end {
        return None;
    }
    let value = serde_json::from_slice(&bytes[colon + 1..end]).ok();
    bytes.drain(..=end);
    value.or(Some(Value::Null))
}
