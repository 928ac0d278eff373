//! Where a request goes.

use http::Uri;
use http::uri::PathAndQuery;

use super::Failure;

/// What a URL says.
#[derive(Debug, PartialEq)]
pub(super) struct Target {
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The `Host` header: the port only where the URL has one.
    pub(super) authority: String,
    pub(super) path: PathAndQuery,
}

/// Reads a URL; `http://` may be left out, and what is behind # is not sent.
pub(super) fn target(url: &str) -> Result<Target, Failure> {
    let wrong = |reason: &str| Failure::new(3, format!("URL rejected: {url:?}: {reason}"));
    let is_scheme = |word: &str| word.chars().all(|letter| letter.is_ascii_alphanumeric());
    let scheme = url.split_once("://").filter(|(word, _)| is_scheme(word));
    let (scheme, rest) = scheme.unwrap_or(("http", url));
    if !scheme.eq_ignore_ascii_case("http") {
        let reason = format!("Protocol \"{scheme}\" not supported: this small curl speaks http:// alone");
        return Err(Failure::new(1, reason));
    }
    let (rest, _) = rest.split_once('#').unwrap_or((rest, ""));
    let uri: Uri =
        format!("http://{rest}").parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
    let (Some(authority), Some(host)) = (uri.authority(), uri.host().filter(|host| !host.is_empty())) else {
        return Err(wrong("it has no host"));
    };
    if authority.as_str().contains('@') {
        return Err(wrong("it has a user; send one by -H 'Authorization: …'"));
    }
    let behind = authority.as_str().strip_prefix(host).unwrap_or_default();
    let port = match (uri.port_u16(), behind) {
        (Some(port), _) => port,
        (None, "" | ":") => 80,
        (None, _) => return Err(wrong("its port is no number up to 65535")),
    };
    Ok(Target {
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        authority: authority.as_str().trim_end_matches(':').to_owned(),
        path: uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_host_port_and_path() {
        let of = |url: &str| {
            let Target { host, port, authority, path } = target(url).unwrap();
            (host, port, authority, path.to_string())
        };
        let is = |host: &str, port, authority: &str, path: &str| {
            (host.to_owned(), port, authority.to_owned(), path.to_owned())
        };
        assert_eq!(of("http://httpbin:8000/get?a=b#c"), is("httpbin", 8000, "httpbin:8000", "/get?a=b"));
        assert_eq!(of("httpbin"), is("httpbin", 80, "httpbin", "/"));
        assert_eq!(of("HTTP://a.b?q"), is("a.b", 80, "a.b", "/?q"));
        assert_eq!(of("http://[::1]:81/x"), is("::1", 81, "[::1]:81", "/x"));
        assert_eq!(of("127.0.0.1:8000/a://b"), is("127.0.0.1", 8000, "127.0.0.1:8000", "/a://b"));
    }

    #[test]
    fn what_is_no_url_is_refused_with_the_reason() {
        let https = "Protocol \"https\" not supported: this small curl speaks http:// alone";
        assert_eq!(target("https://a/"), Err(Failure::new(1, https)));
        for (url, reason) in [
            ("http://", ""),
            ("http:///path", ""),
            ("http://a b/", ""),
            ("http://a:99999/", "its port is no number up to 65535"),
            ("http://a:b/", ""),
            ("http://user:secret@a/", "it has a user; send one by -H 'Authorization: …'"),
        ] {
            let failure = target(url).unwrap_err();
            assert_eq!(failure.status, 3, "{url}: {}", failure.reason);
            assert!(
                failure.reason.starts_with(&format!("URL rejected: {url:?}: {reason}")),
                "{}",
                failure.reason
            );
        }
    }
}
