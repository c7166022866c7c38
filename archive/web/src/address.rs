//! Under which address the client sees us: what URLs in answers begin with (RFC 7239, X-Forwarded-*).
//!
//! What is here comes from a trusted proxy (`proxies.rs`); a value that is no host, scheme or path is disregarded all the same.

use axum::http::{HeaderMap, Uri, header};

/// The address of `/dicom-web`, without a slash at its end.
pub(crate) fn base(headers: &HeaderMap, uri: &Uri) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // Of a chain of proxies the first names what the client used.
    let first = |name: &str| text(name).and_then(|value| value.split(',').next()).map(str::trim);
    let forwarded = |name: &str| {
        let pairs = first("forwarded")?.split(';').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.into_iter().find(|(key, _)| key.trim().eq_ignore_ascii_case(name))?;
        Some(value.trim().trim_matches('"'))
    };
    let scheme = forwarded("proto").or_else(|| first("x-forwarded-proto")).filter(|scheme| is_scheme(scheme));
    let scheme = scheme.unwrap_or("http").to_ascii_lowercase();
    let host = forwarded("host").or_else(|| first("x-forwarded-host")).filter(|host| is_host(host));
    let own = || text(header::HOST.as_str()).filter(|host| is_host(host));
    let host = host.or_else(own).or_else(|| uri.authority().map(|authority| authority.as_str()));
    let port = first("x-forwarded-port").filter(|port| port.parse::<u16>().is_ok());
    let prefix = first("x-forwarded-prefix").filter(|prefix| is_path(prefix)).unwrap_or("").trim_end_matches('/');
    let Some(host) = host else { return format!("{prefix}/dicom-web") };
    let port = match (port, scheme.as_str()) {
        (Some("443"), "https") | (Some("80"), "http") | (None, _) => String::new(),
        (Some(port), _) if !host.rsplit(']').next().unwrap_or(host).contains(':') => format!(":{port}"),
        (Some(_), _) => String::new(),
    };
    format!("{scheme}://{host}{port}{prefix}/dicom-web")
}

fn is_scheme(text: &str) -> bool {
    text.eq_ignore_ascii_case("http") || text.eq_ignore_ascii_case("https")
}

fn is_host(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(fits)
}

fn is_path(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/.-_~".contains(&byte);
    text.starts_with('/') && !text.starts_with("//") && text.len() <= 255 && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)], expected: &str) {
        let map = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().expect("a header")));
        assert_eq!(base(&map.collect(), &Uri::from_static("/x")), expected);
    }

    #[test]
    fn urls_begin_with_what_the_client_sees() {
        check(&[], "/dicom-web");
        check(&[("host", "h:8080")], "http://h:8080/dicom-web");
        check(
            &[("host", "in"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "pacs.example")],
            "https://pacs.example/dicom-web",
        );
        check(
            &[("host", "in"), ("forwarded", r#"for=1.2.3.4;proto=https;host="out:8443", for=x;host=y"#)],
            "https://out:8443/dicom-web",
        );
        check(
            &[
                ("host", "h"),
                ("x-forwarded-prefix", "/pacs/"),
                ("x-forwarded-port", "8443"),
                ("x-forwarded-proto", "https"),
            ],
            "https://h:8443/pacs/dicom-web",
        );
        check(&[("host", "h"), ("x-forwarded-port", "80")], "http://h/dicom-web");
    }

    #[test]
    fn what_is_no_host_or_path_is_disregarded() {
        check(
            &[
                ("host", "h"),
                ("x-forwarded-host", "a\"b/<x>"),
                ("x-forwarded-proto", "javascript"),
                ("x-forwarded-prefix", "//evil.example"),
            ],
            "http://h/dicom-web",
        );
    }
}
