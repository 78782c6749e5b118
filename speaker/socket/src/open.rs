//! Opening a packet socket in the order that has no hole.
//!
//! A packet socket opened *for* a protocol hears that protocol on every interface until it is bound, unfiltered. So it is
//! opened for protocol 0, which hears nothing; then the filter is attached; and only binding it to protocol and
//! interface at once makes it hear (packet(7)).

use std::io;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::ptr;

use ferrolb_speaker_wire::filter::Instruction;
use libc::{c_int, socklen_t};
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};

/// Bytes the kernel may queue for us: some 400 small frames, a storm's worth between two wake-ups. The kernel doubles it
/// for its own book-keeping.
const RECEIVE_BUFFER: usize = 256 * 1024;

/// Why a packet socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel refused the socket.
    #[error(
        "cannot open a packet socket: {0}; the speaker's container needs the capability NET_RAW"
    )]
    Socket(#[source] io::Error),
    /// The kernel refused the filter program.
    #[error("cannot attach the frame filter: {0}")]
    Filter(#[source] io::Error),
    /// The kernel refused an option.
    #[error("cannot set packet socket option {option}: {cause}")]
    Option {
        /// Its name in packet(7) or socket(7).
        option: &'static str,
        /// The kernel's answer.
        #[source]
        cause: io::Error,
    },
    /// The interface went away, or is none that frames can be received on.
    #[error("cannot bind to interface {interface}: {cause}")]
    Bind {
        /// Its index.
        interface: NonZeroU32,
        /// The kernel's answer.
        #[source]
        cause: io::Error,
    },
    /// The runtime could not take the socket into its event queue.
    #[error("cannot register the packet socket with the runtime: {0}")]
    Register(#[source] io::Error),
}

/// A socket for the frames of one Ethernet type (`ETH_P_*`) on one interface, not yet known to tokio.
pub(crate) fn open(
    interface: NonZeroU32,
    ether_type: c_int,
    filter: &[Instruction],
) -> Result<Socket, OpenError> {
    // socket2 adds SOCK_CLOEXEC itself.
    let socket =
        Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None).map_err(OpenError::Socket)?;
    let program: Vec<SockFilter> = filter
        .iter()
        .map(|step| SockFilter::new(step.code, step.jt, step.jf, step.k))
        .collect();
    socket.attach_filter(&program).map_err(OpenError::Filter)?;
    // Has the kernel tell with each frame whether it carried a VLAN tag.
    let on: c_int = 1;
    set_option(&socket, libc::PACKET_AUXDATA, &on).map_err(|cause| OpenError::Option {
        option: "PACKET_AUXDATA",
        cause,
    })?;
    // And when it was received.
    set_at(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &on).map_err(|cause| {
        OpenError::Option {
            option: "SO_TIMESTAMPNS",
            cause,
        }
    })?;
    socket
        .set_recv_buffer_size(RECEIVE_BUFFER)
        .map_err(|cause| OpenError::Option {
            option: "SO_RCVBUF",
            cause,
        })?;
    frames_on(interface, ether_type)
        .and_then(|address| socket.bind(&address))
        .map_err(|cause| OpenError::Bind { interface, cause })?;
    Ok(socket)
}

/// Sets an option of the packet socket level to a value of the C type it takes.
pub(crate) fn set_option<T>(socket: &impl AsRawFd, option: c_int, value: &T) -> io::Result<()> {
    set_at(socket, libc::SOL_PACKET, option, value)
}

/// The same, of any level.
fn set_at<T>(socket: &impl AsRawFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the option's value is alive and of the stated length; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(value).cast(),
            length_of::<T>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The address that means "frames of this type on this interface".
fn frames_on(interface: NonZeroU32, ether_type: c_int) -> io::Result<SockAddr> {
    let index = c_int::try_from(interface.get()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_protocol: u16::try_from(ether_type)
            .map_err(|_| io::ErrorKind::InvalidInput)?
            .to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the storage is zeroed, aligned for every socket address and larger than sockaddr_ll (RFC 3493 3.10), and
    // the length written is that of the address written.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = length_of::<libc::sockaddr_ll>();
            Ok(())
        })
    }?;
    Ok(address)
}

/// The size of a C structure as the socket calls want it.
pub(crate) const fn length_of<T>() -> socklen_t {
    const { assert!(size_of::<T>() <= 4096) };
    #[allow(
        clippy::cast_possible_truncation,
        reason = "asserted above, when compiled"
    )]
    {
        size_of::<T>() as socklen_t
    }
}
