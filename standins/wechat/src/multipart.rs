//! As much of multipart/form-data as a form with one file needs.

/// The content of the part `name`; `None` when it is not there or the body is no form.
pub(crate) fn part<'a>(content_type: &str, body: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let boundary = content_type.split(';').find_map(|p| p.trim().strip_prefix("boundary="))?;
    let mark = format!("--{}", boundary.trim_matches('"'));
    let mut rest = after(body, mark.as_bytes())?;
    loop {
        let head_end = find(rest, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&rest[..head_end]).to_lowercase();
        let content = &rest[head_end + 4..];
        let end = find(content, format!("\r\n{mark}").as_bytes())?;
        if head.contains(&format!("name=\"{name}\"")) {
            return Some(&content[..end]);
        }
        rest = after(content, format!("\r\n{mark}").as_bytes())?;
    }
}

fn find(body: &[u8], what: &[u8]) -> Option<usize> {
    body.windows(what.len()).position(|window| window == what)
}

fn after<'a>(body: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    find(body, what).map(|at| &body[at + what.len()..])
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn a_part_is_found_by_its_name() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x\r\nContent-Disposition: form-data; name=\"media\"; filename=\"p.png\"\r\n\r\n\x89PNG\r\n\r\n--\r\n--x--\r\n";
        let content_type = "multipart/form-data; boundary=x";
        assert_eq!(part(content_type, body, "a"), Some(&b"1"[..]));
        assert_eq!(part(content_type, body, "media"), Some(&b"\x89PNG\r\n\r\n--"[..]));
        assert_eq!(part(content_type, body, "b"), None);
        assert_eq!(part("text/plain", body, "a"), None);
    }
}
