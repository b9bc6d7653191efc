//! The thread that the engine shares with the SIP sockets.
//!
//! A datagram reaches the engine, and its answer the socket, without another thread being woken: on a
//! small machine waking threads costs several times the work on a message itself.
//!
//! Invariant: only the engine's own loop and what feeds it run here; nothing here waits for a disk.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio::sync::oneshot;

/// A running thread with a runtime of its own; it ends when this is dropped.
#[derive(Debug)]
pub struct EngineThread {
    runtime: Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl EngineThread {
    /// Starts it.
    ///
    /// # Errors
    /// A system out of threads or descriptors.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let handle = runtime.handle().clone();
        // Told to stop and no longer wanted are the same.
        let work = move || drop(runtime.block_on(stopped));
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(work)?;
        Ok(Self { runtime: handle, stop, thread })
    }

    /// Sockets opened while the guard lives belong to this thread.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Runs a task on this thread.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        self.runtime.spawn(task)
    }

    /// Ends the thread with all its tasks; its sockets are closed afterwards.
    pub async fn stop(self) {
        let Self { runtime: _, stop, thread } = self;
        drop(stop);
        // It ends at its next await; a panic of the thread itself was said on stderr.
        drop(tokio::task::spawn_blocking(move || drop(thread.join())).await);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn a_task_runs_on_the_thread_and_its_socket_is_free_once_it_stopped() {
        let engine = EngineThread::start().unwrap();
        let socket = {
            let _here = engine.enter();
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            tokio::net::UdpSocket::from_std(socket).unwrap()
        };
        let address = socket.local_addr().unwrap();
        let (say, said) = oneshot::channel();
        let task = engine.spawn(async move {
            say.send(std::thread::current().name().map(str::to_owned)).unwrap();
            let mut buffer = [0; 1];
            drop(socket.recv(&mut buffer).await);
        });
        assert_eq!(said.await.unwrap().as_deref(), Some("engine"));
        engine.stop().await;
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(std::net::UdpSocket::bind(address).is_ok());
    }
}
