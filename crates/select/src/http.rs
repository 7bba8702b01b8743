//! `ALLOKIT_HTTP`: what is known of the process, for those who ask over HTTP. GET only, one connection at a time, each with a
//! deadline and a largest request; a thread only when it is asked for ([`allokit_platform::control`]).

use crate::leaks::{self, LeaksFormat};
use crate::{api, settings};
use allokit_platform::net::{Address, Connection};
use allokit_platform::{clock, control, errno, fork, net};
use allokit_report::Format;
use core::ffi::CStr;
use core::fmt::{self, Write};

/// The longest request, its headers included.
const MOST: usize = 8192;
/// How long a client may take to say what it wants, and how long to take what it gets, in ms.
const ASK_MS: u64 = 2000;
const TAKE_MS: u64 = 20_000;

/// The socket that `ALLOKIT_HTTP` wants, if it wants one; what is wrong with it is said.
pub(crate) fn listen() -> Option<control::Open> {
    let text = settings::http()?;
    let mut room = [0; 4096];
    let text = leaks::filled(text, &mut room).unwrap_or(text);
    let open = Address::parse(text).and_then(|address| {
        let open = net::listen(address);
        if open.is_none() {
            let error = errno::get();
            leaks::say(format_args!("ALLOKIT_HTTP: cannot listen on {} (errno {error})", shown(text)));
        }
        open
    });
    if Address::parse(text).is_none() {
        leaks::say(format_args!(
            "ALLOKIT_HTTP={} is not known; valid: 127.0.0.1:9464, [::1]:9464, 9464 (of 127.0.0.1), unix:PATH",
            shown(text)
        ));
    }
    if open.is_some() {
        unsafe extern "C" fn nothing() {}
        // Without it a child would keep the port.
        fork::register(nothing, nothing, control::close_socket_in_child);
    }
    open
}

fn shown(text: &CStr) -> &str {
    text.to_str().unwrap_or("(not UTF-8)")
}

/// Takes a socket with a path away, at the end of the process.
pub(crate) fn remove() {
    let mut room = [0; 4096];
    let text = settings::http().map(|text| leaks::filled(text, &mut room).unwrap_or(text));
    if let Some(Address::Path(path)) = text.and_then(Address::parse)
        && control::listens()
    {
        control::remove(path);
    }
}

/// What goes to the client, buffered.
struct Out {
    connection: Connection,
    buffer: [u8; 4096],
    used: usize,
    failed: bool,
}

impl Out {
    fn add(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.failed {
            if self.used == self.buffer.len() {
                self.flush();
            }
            let taken = rest.len().min(self.buffer.len() - self.used);
            self.buffer[self.used..self.used + taken].copy_from_slice(&rest[..taken]);
            self.used += taken;
            rest = &rest[taken..];
        }
    }

    fn flush(&mut self) {
        self.failed |= !self.connection.write(&self.buffer[..self.used]);
        self.used = 0;
    }
}

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        if self.failed { Err(fmt::Error) } else { Ok(()) }
    }
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    path: &'a str,
    query: &'a str,
    /// OpenMetrics rather than Prometheus' own format.
    open_metrics: bool,
}

/// A status that is no success, with its reason.
type Refusal = (u16, &'static str);

/// Reads what has come; `None` when it is not whole yet.
fn parse(bytes: &[u8]) -> Option<Result<Request<'_>, Refusal>> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else {
        return (bytes.len() >= MOST).then_some(Err((431, "Request Header Fields Too Large")));
    };
    let bad = Some(Err((400, "Bad Request")));
    let Ok(head) = core::str::from_utf8(&bytes[..end]) else { return bad };
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or("").split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return bad;
    };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return bad;
    }
    if method != "GET" {
        return Some(Err((405, "Method Not Allowed")));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let open_metrics = lines.any(|line| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        name.eq_ignore_ascii_case("accept") && value.contains("application/openmetrics-text")
    });
    Some(Ok(Request { path, query, open_metrics }))
}

/// Answers one connection.
pub(crate) fn serve(fd: i32) {
    let connection = Connection { fd, until: clock::now_ms() + ASK_MS };
    let mut room = [0; MOST];
    let mut used = 0;
    let asked = loop {
        let got = connection.read(&mut room[used..]);
        if got == 0 {
            // It has gone, or it takes its time. Who has said nothing is told nothing.
            if used == 0 {
                return;
            }
            break Err((408, "Request Timeout"));
        }
        used += got;
        if let Some(parsed) = parse(&room[..used]) {
            break parsed;
        }
    };
    let connection = Connection { fd, until: clock::now_ms() + TAKE_MS };
    let mut out = Out { connection, buffer: [0; 4096], used: 0, failed: false };
    // The client has gone then: nobody is to be told.
    let _ = match asked {
        Ok(request) => answer(&request, &mut out),
        Err((status, reason)) => refuse(status, reason, &mut out),
    };
    out.flush();
    connection.finish();
}

fn head(status: u16, reason: &str, kind: &str, out: &mut Out) -> fmt::Result {
    write!(
        out,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nConnection: close\r\nCache-Control: no-store\r\n"
    )?;
    out.write_str(if status == 405 { "Allow: GET\r\n" } else { "" })?;
    out.write_str("X-Content-Type-Options: nosniff\r\n\r\n")
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

fn refuse(status: u16, reason: &str, out: &mut Out) -> fmt::Result {
    head(status, reason, TEXT, out)?;
    writeln!(out, "{reason}")
}

const PATHS: &str = "/metrics  Prometheus, OpenMetrics by Accept
/heap     what is live, for pprof
/report   what is live, as a page; /report.json its data
/leaks    what is live, as text; ?format=json, ?format=lines
/growth   what grows from snapshot to snapshot, as text; ?format=json, ?format=lines
";

fn answer(request: &Request<'_>, out: &mut Out) -> fmt::Result {
    match request.path {
        "/" => {
            head(200, "OK", TEXT, out)?;
            return out.write_str(PATHS);
        }
        "/metrics" => {
            let (format, kind) = if request.open_metrics {
                (Format::OpenMetrics, "application/openmetrics-text; version=1.0.0; charset=utf-8")
            } else {
                (Format::Prometheus, "text/plain; version=0.0.4; charset=utf-8")
            };
            head(200, "OK", kind, out)?;
            return api::stats_write(format, out);
        }
        "/heap" | "/debug/pprof/heap" | "/report" | "/report.json" | "/leaks" | "/growth" => {}
        _ => {
            head(404, "Not Found", TEXT, out)?;
            return out.write_str(PATHS);
        }
    }
    if let Some(reason) = leaks::unknown() {
        head(503, "Service Unavailable", TEXT, out)?;
        return writeln!(out, "nothing is known: {reason}");
    }
    let format = match request.query {
        "" | "format=text" => LeaksFormat::Text,
        "format=json" => LeaksFormat::Json,
        "format=lines" => LeaksFormat::Lines,
        _ => {
            head(400, "Bad Request", TEXT, out)?;
            return out.write_str(PATHS);
        }
    };
    let kind = if format == LeaksFormat::Json { JSON } else { TEXT };
    match request.path {
        "/report" => {
            head(200, "OK", "text/html; charset=utf-8", out)?;
            leaks::write_page(out)
        }
        "/report.json" => {
            head(200, "OK", JSON, out)?;
            leaks::write_json(out)
        }
        "/leaks" => {
            head(200, "OK", kind, out)?;
            leaks::write(format, out);
            Ok(())
        }
        "/growth" => {
            head(200, "OK", kind, out)?;
            leaks::growth_write(format, out);
            Ok(())
        }
        _ => {
            head(200, "OK", "application/octet-stream", out)?;
            leaks::write_pprof(&mut |bytes| out.add(bytes));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_others_refused() {
        let get = |text: &'static str| parse(text.as_bytes());
        assert_eq!(get("GET /metrics HTTP/1.1\r\nHost: x\r\n"), None);
        let request = Request { path: "/leaks", query: "format=json", open_metrics: false };
        assert_eq!(get("GET /leaks?format=json HTTP/1.0\r\n\r\n"), Some(Ok(request)));
        let request = Request { path: "/metrics", query: "", open_metrics: true };
        assert_eq!(
            get(
                "GET /metrics HTTP/1.1\r\naCCept: text/plain;q=0.5, application/openmetrics-text; version=1.0.0\r\n\r\n"
            ),
            Some(Ok(request))
        );
        for text in ["\r\n\r\n", "GET /\r\n\r\n", "GET / HTTP/2\r\n\r\n", "GET x HTTP/1.1\r\n\r\n", "a b c d\r\n\r\n"] {
            assert_eq!(get(text), Some(Err((400, "Bad Request"))), "{text:?}");
        }
        assert_eq!(parse(b"GET /\xff HTTP/1.1\r\n\r\n"), Some(Err((400, "Bad Request"))));
        assert_eq!(get("POST / HTTP/1.1\r\n\r\n"), Some(Err((405, "Method Not Allowed"))));
        assert_eq!(parse(&[b'x'; MOST]), Some(Err((431, "Request Header Fields Too Large"))));
    }
}
