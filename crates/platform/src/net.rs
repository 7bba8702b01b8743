//! A socket that listens, and connections with a deadline: what a tiny server needs, without the allocator. Only where
//! [`crate::control`] has a thread.

use crate::clock;
use crate::control::Open;
use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::net::SocketAddr;

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub enum Address<'a> {
    /// A port of this machine.
    Port(SocketAddr),
    /// The path of a socket.
    Path(&'a CStr),
}

impl Address<'_> {
    /// `127.0.0.1:9464`, `[::1]:9464`, `:9464` and `9464` (of 127.0.0.1), `unix:PATH`.
    #[must_use]
    pub fn parse(text: &CStr) -> Option<Address<'_>> {
        let bytes = text.to_bytes_with_nul();
        if let Some(path) = bytes.strip_prefix(b"unix:") {
            return CStr::from_bytes_with_nul(path).ok().filter(|path| !path.is_empty()).map(Address::Path);
        }
        let text = text.to_str().ok()?;
        let port = text.strip_prefix(':').unwrap_or(text);
        if let Ok(port) = port.parse::<u16>() {
            return Some(Address::Port(SocketAddr::from(([127, 0, 0, 1], port))));
        }
        text.parse().ok().map(Address::Port)
    }
}

/// Waits until a descriptor is ready for `events`, or `until` (of [`clock::now_ms`]) has come: then false.
fn wait(fd: i32, events: i16, until: u64) -> bool {
    loop {
        let left = until.saturating_sub(clock::now_ms());
        if left == 0 {
            return false;
        }
        let mut about = libc::pollfd { fd, events, revents: 0 };
        // SAFETY: one of them.
        match unsafe { libc::poll(&raw mut about, 1, i32::try_from(left).unwrap_or(i32::MAX)) } {
            0 => return false,
            1 => return true,
            _ if crate::errno::get() == libc::EINTR => {}
            _ => return false,
        }
    }
}

/// A socket that listens; `None` with `errno`.
#[must_use]
pub fn listen(address: Address<'_>) -> Option<Open> {
    // SAFETY: the structs are valid, zeroed is one of their values, and as long as is said; the path is zero-terminated and fits.
    unsafe {
        match address {
            Address::Port(SocketAddr::V4(at)) => {
                let mut to: libc::sockaddr_in = core::mem::zeroed();
                to.sin_family = libc::AF_INET as libc::sa_family_t;
                to.sin_port = at.port().to_be();
                to.sin_addr.s_addr = u32::from_ne_bytes(at.ip().octets());
                bind(libc::AF_INET, (&raw const to).cast(), size_of_val(&to), None)
            }
            Address::Port(SocketAddr::V6(at)) => {
                let mut to: libc::sockaddr_in6 = core::mem::zeroed();
                to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                to.sin6_port = at.port().to_be();
                to.sin6_addr.s6_addr = at.ip().octets();
                to.sin6_scope_id = at.scope_id();
                bind(libc::AF_INET6, (&raw const to).cast(), size_of_val(&to), None)
            }
            Address::Path(path) => {
                let mut to: libc::sockaddr_un = core::mem::zeroed();
                to.sun_family = libc::AF_UNIX as libc::sa_family_t;
                let bytes = path.to_bytes_with_nul();
                if bytes.len() > to.sun_path.len() {
                    crate::errno::set(libc::ENAMETOOLONG);
                    return None;
                }
                to.sun_path.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                bind(libc::AF_UNIX, (&raw const to).cast(), size_of_val(&to), Some(path))
            }
        }
    }
}

/// # Safety
/// The address is one of `family`, so long.
unsafe fn bind(family: i32, address: *const libc::sockaddr, length: usize, path: Option<&CStr>) -> Option<Open> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let length = length as libc::socklen_t;
    // SAFETY: the caller's promise; the descriptors are ours.
    unsafe {
        let fd = libc::socket(family, kind, 0);
        if fd < 0 {
            return None;
        }
        let done = || {
            let yes = 1i32;
            let yes_at = (&raw const yes).cast();
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, yes_at, size_of::<i32>() as libc::socklen_t);
            if path.is_some() {
                // The file has these rights from the beginning: only its owner may connect.
                libc::fchmod(fd, 0o600);
            }
            let mut bound = libc::bind(fd, address, length) == 0;
            if let Some(path) = path
                && !bound
                && crate::errno::get() == libc::EADDRINUSE
                && is_left_behind(path, address, length)
            {
                libc::unlink(path.as_ptr());
                bound = libc::bind(fd, address, length) == 0;
            }
            if bound && libc::listen(fd, 16) == 0 { Open::new(fd) } else { None }
        };
        let open = done();
        if open.is_none() {
            let _errno = crate::errno::Saved::new();
            libc::close(fd);
        }
        open
    }
}

/// Whether a path is a socket that nobody listens to any more.
///
/// # Safety
/// The address is that of a path, so long.
unsafe fn is_left_behind(path: &CStr, address: *const libc::sockaddr, length: libc::socklen_t) -> bool {
    let _errno = crate::errno::Saved::new();
    let mut about = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the path is zero-terminated, the struct read only when it was filled, the descriptor ours.
    unsafe {
        if libc::lstat(path.as_ptr(), about.as_mut_ptr()) != 0
            || about.assume_init().st_mode & libc::S_IFMT != libc::S_IFSOCK
        {
            return false;
        }
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
        let refused = libc::connect(fd, address, length) != 0 && crate::errno::get() == libc::ECONNREFUSED;
        libc::close(fd);
        refused
    }
}

/// A connection that ends at a time. Not closed when dropped.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Its descriptor, which does not block.
    pub fd: i32,
    /// When waiting for the other side ends, of [`clock::now_ms`].
    pub until: u64,
}

impl Connection {
    /// What has come, at least a byte; 0 at its end, and when the time has come.
    pub fn read(&self, room: &mut [u8]) -> usize {
        loop {
            // SAFETY: the pointer and length are those of a slice.
            let got = unsafe { libc::recv(self.fd, room.as_mut_ptr().cast(), room.len(), 0) };
            match usize::try_from(got) {
                Ok(got) => return got,
                Err(_) => match crate::errno::get() {
                    libc::EINTR => {}
                    libc::EAGAIN if wait(self.fd, libc::POLLIN, self.until) => {}
                    _ => return 0,
                },
            }
        }
    }

    /// Sends all; false when the other side does not take it, or not in time.
    #[must_use]
    pub fn write(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            // SAFETY: the pointer and length are those of a slice.
            let sent = unsafe { libc::send(self.fd, rest.as_ptr().cast(), rest.len(), libc::MSG_NOSIGNAL) };
            match usize::try_from(sent) {
                Ok(sent) => rest = &rest[sent..],
                Err(_) => match crate::errno::get() {
                    libc::EINTR => {}
                    libc::EAGAIN if wait(self.fd, libc::POLLOUT, self.until) => {}
                    _ => return false,
                },
            }
        }
        true
    }

    /// Says that no more comes, and lets the other side end: closing with bytes unread would take from it what was sent.
    pub fn finish(&self) {
        // SAFETY: no precondition.
        unsafe { libc::shutdown(self.fd, libc::SHUT_WR) };
        let rest = Connection { until: clock::now_ms() + 200, ..*self };
        let mut room = [0; 1024];
        for _ in 0..64 {
            if rest.read(&mut room) == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn addresses_are_told_apart() {
        let said = |text: &CStr| match Address::parse(text) {
            Some(Address::Port(at)) => format!("{at}"),
            Some(Address::Path(path)) => format!("{path:?}"),
            None => "none".into(),
        };
        for (text, wanted) in [
            (c"9464", "127.0.0.1:9464"),
            (c":9464", "127.0.0.1:9464"),
            (c"0.0.0.0:80", "0.0.0.0:80"),
            (c"[::1]:9464", "[::1]:9464"),
            (c"unix:/run/a b", "\"/run/a b\""),
            (c"unix:", "none"),
            (c"localhost:80", "none"),
            (c"70000", "none"),
            (c"", "none"),
        ] {
            assert_eq!(said(text), wanted, "{text:?}");
        }
    }
}
