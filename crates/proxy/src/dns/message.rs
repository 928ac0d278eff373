//! As much of DNS messages (RFC 1035, section 4) as forwarding and keeping them takes. Pure.

/// Length of a header.
const HEADER: usize = 12;
/// Type of the record that carries EDNS (RFC 6891); what stands in its place of a TTL is none.
const OPT: u16 = 41;
const SOA: u16 = 6;
/// Longest that an answer is kept, in seconds.
const LONGEST: u32 = 3600;

/// What identifies a query: everything but its id, names without regard to case. `None` if it is no query with one
/// question.
pub(super) fn key(query: &[u8]) -> Option<Vec<u8>> {
    let is_query = query.len() > HEADER && query[2] & 0x80 == 0;
    if !is_query || number(query, 4)? != 1 {
        return None;
    }
    let end = name_end(query, HEADER)?;
    query.get(end..end + 4)?;
    let mut key = query[2..].to_vec();
    // Length bytes are below 64 and so no letters.
    key[HEADER - 2..end - 2].make_ascii_lowercase();
    Some(key)
}

/// Whether `reply` answers `query`: a response with the same question. Ids are compared too.
pub(super) fn answers(query: &[u8], reply: &[u8]) -> bool {
    let Some(end) = name_end(query, HEADER).map(|end| end + 4) else { return false };
    reply.len() >= end
        && query.len() >= end
        && reply[..2] == query[..2]
        && reply[2] & 0x80 != 0
        && number(reply, 4) == Some(1)
        && reply[HEADER..end].eq_ignore_ascii_case(&query[HEADER..end])
}

/// For how many seconds `reply` may be kept: the least TTL of its answers, or of a negative answer what its SOA says
/// (RFC 2308). `None` if it may not be.
pub(super) fn lifetime(reply: &[u8]) -> Option<u32> {
    let (truncated, code) = (reply.get(2)? & 0x02 != 0, reply.get(3)? & 0x0f);
    if truncated || (code != 0 && code != 3) {
        return None;
    }
    let records = records(reply)?;
    let answers = usize::from(number(reply, 6)?);
    let negative = || {
        // Two names of at least a byte, and five numbers.
        let soa = records.iter().find(|record| record.kind == SOA && record.end >= record.ttl_at + 6 + 22)?;
        // The last of SOA's fields is the TTL of what is not there.
        let minimum = reply.get(soa.end - 4..soa.end)?;
        Some(soa.ttl.min(u32::from_be_bytes(minimum.try_into().ok()?)))
    };
    let ttl = match answers {
        0 => negative()?,
        _ => records.iter().take(answers).map(|record| record.ttl).min()?,
    };
    Some(ttl.min(LONGEST)).filter(|ttl| *ttl > 0)
}

/// Makes a kept `reply`, that is `age` seconds old, the answer to the query with `id`.
pub(super) fn renew(reply: &mut [u8], id: [u8; 2], age: u32) {
    let Some(records) = records(reply) else { return };
    for record in records.iter().filter(|record| record.kind != OPT) {
        let ttl = record.ttl.saturating_sub(age).to_be_bytes();
        reply[record.ttl_at..record.ttl_at + 4].copy_from_slice(&ttl);
    }
    reply[..2].copy_from_slice(&id);
}

/// The answer that nobody could be asked: SERVFAIL, with the question.
pub(super) fn failure(query: &[u8]) -> Vec<u8> {
    let end = name_end(query, HEADER).map_or(HEADER, |end| end + 4).min(query.len());
    let mut reply = query[..end].to_vec();
    // Response, recursion available; opcode and recursion desired as asked.
    reply[2] = 0x80 | (query[2] & 0x79);
    reply[3] = 0x80 | 2;
    reply[4..6].copy_from_slice(&u16::from(end > HEADER).to_be_bytes());
    reply[6..HEADER].fill(0);
    reply
}

struct Record {
    kind: u16,
    ttl_at: usize,
    ttl: u32,
    end: usize,
}

/// All records of a message, or none if it is not well formed.
fn records(message: &[u8]) -> Option<Vec<Record>> {
    let mut at = HEADER;
    for _ in 0..number(message, 4)? {
        at = name_end(message, at)? + 4;
    }
    let count =
        u32::from(number(message, 6)?) + u32::from(number(message, 8)?) + u32::from(number(message, 10)?);
    let mut records = Vec::new();
    for _ in 0..count {
        let name = name_end(message, at)?;
        let fixed = message.get(name..name + 10)?;
        let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
        let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let end = name + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        message.get(..end)?;
        records.push(Record { kind, ttl_at: name + 4, ttl, end });
        at = end;
    }
    Some(records)
}

/// Where the name at `at` ends.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += usize::from(length) + 1,
            // A pointer is the end of a name.
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

/// An answer stays the answer to its question, however long it was kept; no message is too strange.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn properties(bytes: &[u8]) -> bool {
    let lived = lifetime(bytes);
    let mut renewed = bytes.to_vec();
    if lived.is_some() {
        renew(&mut renewed, [1, 2], 1);
        assert_eq!((renewed.len(), &renewed[..2]), (bytes.len(), &[1, 2][..]));
        assert!(lifetime(&renewed) <= lived);
    }
    if key(bytes).is_none() {
        return lived.is_some();
    }
    let failed = failure(bytes);
    assert!(answers(bytes, &failed) && lifetime(&failed).is_none());
    assert_eq!(key(bytes), key(&[&[9, 9], &bytes[2..]].concat()));
    true
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A query for the A record of `name`.
    pub(crate) fn query(id: u16, name: &str) -> Vec<u8> {
        let mut message = id.to_be_bytes().to_vec();
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.extend([0, 0, 1, 0, 1]);
        message
    }

    /// An answer to `query` with one address for each of `ttls`.
    pub(crate) fn reply(query: &[u8], ttls: &[u32]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2] |= 0x80;
        message[7] = ttls.len() as u8;
        for ttl in ttls {
            message.extend([0xc0, 12, 0, 1, 0, 1]);
            message.extend(ttl.to_be_bytes());
            message.extend([0, 4, 10, 0, 0, 1]);
        }
        message
    }

    #[test]
    fn a_question_is_the_same_in_any_case_and_with_any_id() {
        let one = key(&query(1, "Shop.example")).unwrap();
        assert_eq!(one, key(&query(2, "shop.EXAMPLE")).unwrap());
        assert_ne!(one, key(&query(1, "shop.example.org")).unwrap());
        assert_eq!(key(&reply(&query(1, "a"), &[])), None);
        assert_eq!(key(b"short"), None);
    }

    #[test]
    fn only_the_answer_to_the_question_answers_it() {
        let asked = query(7, "a.example");
        assert!(answers(&asked, &reply(&asked, &[1])));
        assert!(!answers(&asked, &asked));
        assert!(!answers(&asked, &reply(&query(8, "a.example"), &[1])));
        assert!(!answers(&asked, &reply(&query(7, "b.example"), &[1])));
        assert!(!answers(&asked, &[]));
    }

    #[test]
    fn answers_live_as_long_as_their_shortest_record() {
        let asked = query(7, "a.example");
        assert_eq!(lifetime(&reply(&asked, &[300, 60])), Some(60));
        assert_eq!(lifetime(&reply(&asked, &[0])), None);
        assert_eq!(lifetime(&reply(&asked, &[100_000])), Some(LONGEST));
        assert_eq!(lifetime(&reply(&asked, &[])), None, "a negative answer without SOA is not kept");
        let mut failed = reply(&asked, &[60]);
        failed[3] = 2;
        assert_eq!(lifetime(&failed), None);
        let mut negative = reply(&asked, &[]);
        negative[3] = 3;
        negative[9] = 1;
        negative.extend([0, 0, SOA as u8, 0, 1, 0, 0, 0, 200, 0, 22, 0, 0]);
        negative.extend([0; 16]);
        negative.extend(30_u32.to_be_bytes());
        assert_eq!(lifetime(&negative), Some(30));
    }

    #[test]
    fn kept_answers_grow_old() {
        let asked = query(7, "a.example");
        let mut kept = reply(&asked, &[300, 60]);
        renew(&mut kept, [0, 9], 50);
        assert_eq!(kept, reply(&query(9, "a.example"), &[250, 10]));
    }

    #[test]
    fn failure_has_the_question() {
        let asked = query(7, "a.example");
        let failed = failure(&asked);
        assert!(answers(&asked, &failed));
        assert_eq!(failed[3] & 0x0f, 2);
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut random = fastrand::Rng::with_seed(3);
        let seed = reply(&query(7, "a.example"), &[300, 60]);
        for _ in 0..50_000 {
            let mut bytes = seed.clone();
            for _ in 0..random.usize(1..5) {
                let at = random.usize(0..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(0..=bytes.len()));
            key(&bytes);
            lifetime(&bytes);
            answers(&seed, &bytes);
            if bytes.len() >= HEADER {
                failure(&bytes);
                renew(&mut bytes, [0, 0], 1);
            }
        }
    }

    #[test]
    fn what_only_says_that_it_is_an_soa_is_not_kept() {
        let mut message = reply(&query(7, "shop.example"), &[]);
        message[9] = 1;
        message.extend([0xc0, 12, 0, 6, 0, 1, 0, 0, 1, 4, 0, 0]);
        assert_eq!(lifetime(&message), None);
    }

    #[test]
    fn no_message_is_too_strange() {
        let asked = query(7, "shop.example");
        let (kept, negative) = (reply(&asked, &[60, 30]), reply(&asked, &[]));
        let corpus: [&[u8]; 3] = [&asked, &kept, &negative];
        let words: [&[u8]; 5] = [&[0xc0, 12], &[63], &[0xff, 0xff], &[0, 41, 16, 0], &[0, 6, 0, 1]];
        crate::fuzz::each(&corpus, &words, properties);
    }
}
