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

/// The same for a worker's shared socket, with room for a burst of all its browsers. Bound to all addresses
/// it tells to which of them a packet came: browsers take answers only from there.
pub fn bind_shared(at: SocketAddr, dscp: u8) -> io::Result<UdpSocket> {
    let socket = Socket::from(bind(at, dscp)?);
    if at.ip().is_unspecified() {
        tell_destination(&socket, at.is_ipv4())?;
    }
    // The kernel caps it at net.core.rmem_max without an error.
    socket.set_recv_buffer_size(SHARED_BUFFER)?;
    socket.set_send_buffer_size(SHARED_BUFFER)?;
    Ok(socket.into())
}

#[expect(unsafe_code, reason = "IP_PKTINFO has no safe form in std or socket2")]
fn tell_destination(socket: &Socket, is_v4: bool) -> io::Result<()> {
    let (level, name) = if is_v4 {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    };
    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: `on` lives for the call and `len` is its length.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), len) };
    checked(set).map(drop)
}

/// Room for one control message with a destination address, aligned as the kernel wants it.
type Control = [u64; 8];

/// Writes "send from this address" into `control` and points the message to it.
#[expect(unsafe_code, reason = "control messages are laid out by the C macros")]
fn say_source(header: &mut libc::msghdr, control: &mut Control, source: IpAddr) {
    header.msg_control = control.as_mut_ptr().cast();
    match source {
        IpAddr::V4(address) => {
            let s_addr = u32::from_ne_bytes(address.octets());
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            // SAFETY: the control buffer is aligned and has room for one message of this size.
            unsafe { write_control(header, libc::IPPROTO_IP, libc::IP_PKTINFO, info) };
        }
        IpAddr::V6(address) => {
            let ipi6_addr = libc::in6_addr { s6_addr: address.octets() };
            let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
            // SAFETY: as above.
            unsafe { write_control(header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info) };
        }
    }
}

/// # Safety
/// `header.msg_control` points to a [`Control`], which has room for a message with `info`.
#[expect(unsafe_code, reason = "control messages are laid out by the C macros")]
unsafe fn write_control<T>(header: &mut libc::msghdr, level: libc::c_int, kind: libc::c_int, info: T) {
    let len = libc::c_uint::try_from(size_of::<T>()).unwrap_or(0);
    const { assert!(size_of::<T>() + 32 <= size_of::<Control>(), "a control message fits its room") };
    // SAFETY: the caller's promise; the first message begins at the buffer's own beginning.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(len) as usize;
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(len) as usize;
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(info);
    }
}

/// To which of our addresses a received message came, if the socket tells.
#[expect(unsafe_code, reason = "control messages are laid out by the C macros")]
fn destination(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel filled the control buffer that `header` points to, up to `msg_controllen`.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let content = libc::CMSG_DATA(message);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = content.cast::<libc::in_pktinfo>().read_unaligned();
                    return Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = content.cast::<libc::in6_pktinfo>().read_unaligned();
                    return Some(IpAddr::from(info.ipi6_addr.s6_addr));
                }
                _ => message = libc::CMSG_NXTHDR(header, message),
            }
        }
    }
    None
}

/// A datagram to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// From which of our addresses, where the socket has several.
    pub from: Option<IpAddr>,
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub bytes: &'a [u8],
}

/// Who sent a datagram, and to which of our addresses, if the socket tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Postmark {
    /// The sender.
    pub from: SocketAddr,
    /// Our address.
    pub at: Option<IpAddr>,
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
    controls: Vec<Control>,
    taken: Vec<(usize, Option<Postmark>)>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            slots: vec![[0; SLOT_LEN]; MAX_AT_ONCE],
            addresses: vec![blank_address(); MAX_AT_ONCE],
            controls: vec![[0; 8]; MAX_AT_ONCE],
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
        let memory = self.slots.iter_mut().zip(&mut self.addresses).zip(&mut self.controls);
        for ((header, part), ((slot, address), control)) in headers.iter_mut().zip(&mut parts).zip(memory) {
            *part = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT_LEN };
            header.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            header.msg_hdr.msg_namelen = address_len();
            header.msg_hdr.msg_iov = std::ptr::from_mut(part);
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of::<Control>();
        }
        let count = libc::c_uint::try_from(headers.len()).unwrap_or(0);
        // SAFETY: headers, parts, slots, addresses and controls live and stay in place for the call; lengths are theirs.
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
            let at = destination(&header.msg_hdr);
            self.taken.push((len, from.as_socket().map(|from| Postmark { from, at })));
        }
        Ok(taken)
    }

    /// The datagrams of the last `take`, each with its sender.
    pub fn datagrams(&mut self) -> impl Iterator<Item = (&mut [u8], Postmark)> {
        self.slots
            .iter_mut()
            .zip(&self.taken)
            .filter_map(|(slot, (len, postmark))| Some((slot.get_mut(..*len)?, (*postmark)?)))
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
pub fn give<'a>(socket: &UdpSocket, letters: impl Iterator<Item = Letter<'a>>) -> u64 {
    let mut letters = letters.peekable();
    let mut lost = 0;
    while letters.peek().is_some() {
        let mut addresses: [Option<SockAddr>; MAX_AT_ONCE] = [const { None }; MAX_AT_ONCE];
        let mut controls: [Control; MAX_AT_ONCE] = [[0; 8]; MAX_AT_ONCE];
        let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_AT_ONCE];
        let mut headers = [blank(); MAX_AT_ONCE];
        let mut count = 0u32;
        let memory = parts.iter_mut().zip(&mut addresses).zip(&mut controls);
        for (header, ((part, address), control)) in headers.iter_mut().zip(memory) {
            let Some(letter) = letters.next() else { break };
            let to = address.insert(letter.to.into());
            // The kernel only reads what a sent message points to.
            *part = libc::iovec {
                iov_base: letter.bytes.as_ptr().cast_mut().cast(),
                iov_len: letter.bytes.len(),
            };
            header.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = to.len();
            header.msg_hdr.msg_iov = std::ptr::from_mut(part);
            header.msg_hdr.msg_iovlen = 1;
            if let Some(source) = letter.from {
                say_source(&mut header.msg_hdr, control, source);
            }
            count += 1;
        }
        let mut done = 0u32;
        while done < count {
            let rest = headers.get_mut(usize::try_from(done).unwrap_or(0)..).unwrap_or(&mut []);
            // SAFETY: headers, parts, addresses, controls and the packets live and stay in place for the call.
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
        assert_eq!(give(&one, packets.iter().map(|bytes| Letter { from: None, to, bytes })), 0);
        let mut inbox = Inbox::default();
        let mut got = Vec::new();
        while got.len() < packets.len() {
            let taken = inbox.take(&other).unwrap();
            assert!(taken <= MAX_AT_ONCE);
            for (datagram, postmark) in inbox.datagrams() {
                assert_eq!(postmark, Postmark { from: one.local_addr().unwrap(), at: None });
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
        let letters =
            [(to, b"a"), (nowhere, b"b"), (to, b"c")].map(|(to, bytes)| Letter { from: None, to, bytes });
        assert_eq!(give(&one, letters.into_iter()), 1);
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
    fn a_socket_of_all_addresses_answers_from_the_one_that_was_asked() {
        for (all, asked, asking) in [("0.0.0.0:0", "127.0.0.7", "127.0.0.1:0"), ("[::]:0", "::1", "[::1]:0")]
        {
            // A machine without IPv6 has nothing to test there.
            let Ok(asker) = bind(asking.parse().unwrap(), 0) else { continue };
            let socket = bind_shared(all.parse().unwrap(), 46).unwrap();
            let asked: IpAddr = asked.parse().unwrap();
            let ours = SocketAddr::new(asked, socket.local_addr().unwrap().port());
            asker.send_to(b"who", ours).unwrap();
            let mut inbox = Inbox::default();
            assert_eq!(inbox.take(&socket).unwrap(), 1);
            let postmark = inbox.datagrams().next().unwrap().1;
            assert_eq!(postmark.at, Some(asked));
            let letter = Letter { from: postmark.at, to: postmark.from, bytes: b"me" };
            assert_eq!(give(&socket, std::iter::once(letter)), 0);
            assert_eq!(asker.recv_from(&mut [0; 9]).unwrap(), (2, ours));
        }
    }

    #[test]
    fn packets_are_marked_for_speed() {
        assert_eq!(Socket::from(local()).tos_v4().unwrap(), 46 << 2);
    }
}
