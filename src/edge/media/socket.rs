//! The kernel's side of a media worker: waiting for many sockets, taking and giving many packets at once.
//!
//! The standard library knows neither epoll nor `recvmmsg`; this file is the only one that says `unsafe`.
//!
//! Invariant: every pointer handed to the kernel points into memory that lives, unmoved, for the whole call,
//! and every length is that memory's own.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::media::rtp::MAX_DATAGRAM;

/// Packets taken or given by one system call.
pub const MAX_AT_ONCE: usize = 64;

/// Octets of a receive slot: longer datagrams are cut and fail their checks.
const SLOT_LEN: usize = MAX_DATAGRAM + 36;

/// Octets that the kernel may keep for the shared socket while a worker gathers.
const SHARED_BUFFER: usize = 4 << 20;

/// Turns a system call's result into a `Result`.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A bound, non-blocking UDP socket with its packets marked `dscp`.
pub fn bind(at: SocketAddr, dscp: u8) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    let traffic_class = u32::from(dscp) << 2;
    match at.ip() {
        IpAddr::V4(_) => socket.set_tos_v4(traffic_class)?,
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_tclass_v6(traffic_class)?;
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    Ok(socket.into())
}

/// The same for a worker's shared socket, with room for a burst of all its browsers.
pub fn bind_shared(at: SocketAddr, dscp: u8) -> io::Result<UdpSocket> {
    let socket = Socket::from(bind(at, dscp)?);
    // The kernel caps it at net.core.rmem_max without an error.
    socket.set_recv_buffer_size(SHARED_BUFFER)?;
    socket.set_send_buffer_size(SHARED_BUFFER)?;
    Ok(socket.into())
}

/// Which sockets have something to read.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    ready: Vec<libc::epoll_event>,
}

impl Poller {
    /// An empty one that names at most `max` ready sockets at once.
    #[expect(unsafe_code, reason = "epoll_create1 has no safe form in std")]
    pub fn new(max: usize) -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is fresh and owned by nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self { epoll, ready: vec![libc::epoll_event { events: 0, u64: 0 }; max.max(1)] })
    }

    /// Watches a descriptor under a name. It leaves by itself when it is closed.
    #[expect(unsafe_code, reason = "epoll_ctl has no safe form in std")]
    pub fn add(&self, fd: &impl AsRawFd, name: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: name };
        // SAFETY: `event` lives for the call; both descriptors are open.
        let added = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
        };
        checked(added).map(drop)
    }

    /// Waits at most `timeout_ms` and appends the names of what is ready to `names`.
    #[expect(unsafe_code, reason = "epoll_wait has no safe form in std")]
    pub fn wait(&mut self, timeout_ms: i32, names: &mut Vec<u64>) -> io::Result<()> {
        let room = i32::try_from(self.ready.len()).unwrap_or(i32::MAX);
        // SAFETY: `ready` has room for `room` events and lives for the call.
        let found =
            unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), self.ready.as_mut_ptr(), room, timeout_ms) };
        match checked(found) {
            Ok(found) => {
                let found = usize::try_from(found).unwrap_or(0);
                names.extend(self.ready.iter().take(found).map(|event| event.u64));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Wakes a waiting worker from another thread.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// A silent bell.
    #[expect(unsafe_code, reason = "eventfd has no safe form in std")]
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is fresh and owned by nobody else.
        let fd = unsafe {
            OwnedFd::from_raw_fd(checked(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?)
        };
        Ok(Self(fd))
    }

    /// Wakes the worker, now or when it next waits.
    #[expect(unsafe_code, reason = "an eventfd takes exactly eight octets")]
    pub fn ring(&self) {
        let one = 1u64;
        // SAFETY: eight octets of a living value. A full counter rings already, so the result tells nothing.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    /// Takes note of all rings so far.
    #[expect(unsafe_code, reason = "an eventfd gives exactly eight octets")]
    pub fn hush(&self) {
        let mut count = 0u64;
        // SAFETY: eight octets of a living value. An empty counter has nothing to tell.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// An empty message header. All zero is what the kernel calls empty.
#[expect(unsafe_code, reason = "mmsghdr has private padding and so no literal form")]
fn blank() -> libc::mmsghdr {
    // SAFETY: integers and null pointers only; zero is a value of each.
    unsafe { std::mem::zeroed() }
}

#[expect(unsafe_code, reason = "sockaddr_storage has private padding and so no literal form")]
fn blank_address() -> libc::sockaddr_storage {
    // SAFETY: integers only; zero is a value of each.
    unsafe { std::mem::zeroed() }
}

/// What one `recvmmsg` took, reused for the next.
pub struct Inbox {
    slots: Vec<[u8; SLOT_LEN]>,
    addresses: Vec<libc::sockaddr_storage>,
    taken: Vec<(usize, Option<SocketAddr>)>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            slots: vec![[0; SLOT_LEN]; MAX_AT_ONCE],
            addresses: vec![blank_address(); MAX_AT_ONCE],
            taken: Vec::with_capacity(MAX_AT_ONCE),
        }
    }
}

impl Inbox {
    /// Takes up to [`MAX_AT_ONCE`] datagrams that wait at the socket; how many.
    #[expect(unsafe_code, reason = "recvmmsg has no safe form in std")]
    pub fn take(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.taken.clear();
        let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_AT_ONCE];
        let mut headers = [blank(); MAX_AT_ONCE];
        for (((header, part), slot), address) in
            headers.iter_mut().zip(&mut parts).zip(&mut self.slots).zip(&mut self.addresses)
        {
            *part = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT_LEN };
            header.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            header.msg_hdr.msg_namelen = address_len();
            header.msg_hdr.msg_iov = std::ptr::from_mut(part);
            header.msg_hdr.msg_iovlen = 1;
        }
        let count = libc::c_uint::try_from(headers.len()).unwrap_or(0);
        // SAFETY: headers, parts, slots and addresses live and stay in place for the call; lengths are theirs.
        let taken = checked(unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        })?;
        let taken = usize::try_from(taken).unwrap_or(0);
        for (header, address) in headers.iter().zip(&self.addresses).take(taken) {
            let len = usize::try_from(header.msg_len).unwrap_or(0).min(SLOT_LEN);
            // SAFETY: the kernel wrote an address of this length into this storage.
            let from = unsafe { SockAddr::new(storage_of(address), header.msg_hdr.msg_namelen) };
            self.taken.push((len, from.as_socket()));
        }
        Ok(taken)
    }

    /// The datagrams of the last `take`, each with its sender.
    pub fn datagrams(&mut self) -> impl Iterator<Item = (&mut [u8], SocketAddr)> {
        self.slots
            .iter_mut()
            .zip(&self.taken)
            .filter_map(|(slot, (len, from))| Some((slot.get_mut(..*len)?, (*from)?)))
    }
}

/// socket2 wraps the same structure in its own type.
#[expect(unsafe_code, reason = "both types are the C sockaddr_storage")]
fn storage_of(address: &libc::sockaddr_storage) -> socket2::SockAddrStorage {
    let mut storage = socket2::SockAddrStorage::zeroed();
    // SAFETY: `view_as` asks for a type that is a socket address, which sockaddr_storage is.
    unsafe { *storage.view_as::<libc::sockaddr_storage>() = *address };
    storage
}

fn address_len() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<libc::sockaddr_storage>()).unwrap_or(0)
}

/// Gives packets to the kernel, up to [`MAX_AT_ONCE`] in a call; how many it did not take.
#[expect(unsafe_code, reason = "sendmmsg has no safe form in std")]
pub fn give<'a>(socket: &UdpSocket, packets: impl Iterator<Item = (SocketAddr, &'a [u8])>) -> u64 {
    let mut packets = packets.peekable();
    let mut lost = 0;
    while packets.peek().is_some() {
        let mut addresses: [Option<SockAddr>; MAX_AT_ONCE] = [const { None }; MAX_AT_ONCE];
        let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_AT_ONCE];
        let mut headers = [blank(); MAX_AT_ONCE];
        let mut count = 0u32;
        for ((header, part), address) in headers.iter_mut().zip(&mut parts).zip(&mut addresses) {
            let Some((to, packet)) = packets.next() else { break };
            let to = address.insert(to.into());
            // The kernel only reads what a sent message points to.
            *part = libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() };
            header.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = to.len();
            header.msg_hdr.msg_iov = std::ptr::from_mut(part);
            header.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        let mut done = 0u32;
        while done < count {
            let rest = headers.get_mut(usize::try_from(done).unwrap_or(0)..).unwrap_or(&mut []);
            // SAFETY: headers, parts, addresses and the packets live and stay in place for the call.
            let sent = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), count - done, libc::MSG_DONTWAIT)
            };
            match u32::try_from(sent) {
                Ok(sent) if sent > 0 => done += sent,
                // The first packet of the rest is refused (no route, full buffer): go on behind it.
                Ok(_) | Err(_) => {
                    lost += 1;
                    done += 1;
                }
            }
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "tests"
    )]
    use super::*;

    fn local() -> UdpSocket {
        bind("127.0.0.1:0".parse().unwrap(), 46).unwrap()
    }

    #[test]
    fn what_is_given_is_taken_in_batches_with_its_sender() {
        let (one, other) = (local(), bind_shared("127.0.0.1:0".parse().unwrap(), 46).unwrap());
        let to = other.local_addr().unwrap();
        let packets: Vec<Vec<u8>> = (0..100u8).map(|number| vec![number; 1 + usize::from(number)]).collect();
        assert_eq!(give(&one, packets.iter().map(|packet| (to, packet.as_slice()))), 0);
        let mut inbox = Inbox::default();
        let mut got = Vec::new();
        while got.len() < packets.len() {
            let taken = inbox.take(&other).unwrap();
            assert!(taken <= MAX_AT_ONCE);
            for (datagram, from) in inbox.datagrams() {
                assert_eq!(from, one.local_addr().unwrap());
                got.push(datagram.to_vec());
            }
        }
        assert_eq!(got, packets);
        assert_eq!(inbox.take(&other).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_packet_that_cannot_go_does_not_hold_up_the_others() {
        let (one, other) = (local(), local());
        let to = other.local_addr().unwrap();
        let nowhere = "[::1]:9".parse().unwrap();
        let packets: [(SocketAddr, &[u8]); 3] = [(to, b"a"), (nowhere, b"b"), (to, b"c")];
        assert_eq!(give(&one, packets.into_iter()), 1);
        let mut inbox = Inbox::default();
        assert_eq!(inbox.take(&other).unwrap(), 2);
    }

    #[test]
    fn the_poller_names_what_is_ready_and_the_bell_wakes_it() {
        let mut poller = Poller::new(8).unwrap();
        let (bell, socket, sender) = (Bell::new().unwrap(), local(), local());
        poller.add(&bell, 1).unwrap();
        poller.add(&socket, 2).unwrap();
        let mut names = Vec::new();
        poller.wait(0, &mut names).unwrap();
        assert!(names.is_empty());
        bell.ring();
        bell.ring();
        sender.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        poller.wait(1_000, &mut names).unwrap();
        names.sort_unstable();
        assert_eq!(names, [1, 2]);
        bell.hush();
        names.clear();
        drop(socket);
        poller.wait(0, &mut names).unwrap();
        assert!(names.is_empty());
    }

    #[test]
    fn packets_are_marked_for_speed() {
        assert_eq!(Socket::from(local()).tos_v4().unwrap(), 46 << 2);
    }
}
