//! Many inputs for tests of everything that reads what others send: a corpus, changed at random. The seed is fixed, so
//! that a run finds the same tomorrow; `OUTRIGGER_FUZZ_RUNS` and `OUTRIGGER_FUZZ_SEED` make it another, longer one. With
//! `OUTRIGGER_FUZZ_SECONDS` each test goes on for so long, and what was taken is changed further.

use std::time::{Duration, Instant};

use fastrand::Rng;

const RUNS: u64 = 30_000;
const LONGEST: usize = 4096;
/// Inputs that were taken, and are kept to be changed further.
const KEPT: usize = 1000;

/// Shows the input of a run that panics.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input was b\"{}\"", self.0.escape_ascii());
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Gives `check` each of `corpus`, then changed ones. `words` are what a random byte would hardly ever be. `check` says
/// whether the input was taken for what it tests; some have to be, or the test shows nothing.
pub(crate) fn each(corpus: &[&[u8]], words: &[&[u8]], check: impl Fn(&[u8]) -> bool) {
    let mut rng = Rng::with_seed(setting("OUTRIGGER_FUZZ_SEED", 1));
    let run = |input: &[u8]| {
        let shown = Shown(input);
        let taken = check(input);
        drop(shown);
        taken
    };
    for input in corpus {
        run(input);
    }
    let seconds = setting("OUTRIGGER_FUZZ_SECONDS", 0);
    let (least, end) = (setting("OUTRIGGER_FUZZ_RUNS", RUNS), Instant::now() + Duration::from_secs(seconds));
    let (mut runs, mut taken, mut kept) = (0, 0, Vec::new());
    while runs < least || Instant::now() < end {
        let further = seconds > 0 && !kept.is_empty() && rng.bool();
        let input = if further {
            let known: &Vec<u8> = &kept[rng.usize(..kept.len())];
            changed(&[known.as_slice(), corpus[rng.usize(..corpus.len())]], words, &mut rng)
        } else {
            changed(corpus, words, &mut rng)
        };
        runs += 1;
        if run(&input) {
            taken += 1;
            match kept.len() {
                _ if seconds == 0 => {}
                KEPT => kept[rng.usize(..KEPT)] = input,
                _ => kept.push(input),
            }
        }
    }
    assert!(taken > runs / 50, "only {taken} of {runs} inputs were taken");
}

fn changed(corpus: &[&[u8]], words: &[&[u8]], rng: &mut Rng) -> Vec<u8> {
    let pick = |rng: &mut Rng, from: &[&[u8]]| from[rng.usize(..from.len())].to_vec();
    let mut bytes = pick(rng, corpus);
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=bytes.len());
        let end = rng.usize(at..=bytes.len().min(at + 32));
        match rng.u8(..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            1 if at < bytes.len() => bytes[at] = rng.u8(..),
            2 => bytes.insert(at, rng.u8(..)),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let copy = bytes[at..end].to_vec();
                let to = rng.usize(..=bytes.len());
                bytes.splice(to..to, copy);
            }
            5 => {
                let word = pick(rng, words);
                bytes.splice(at..at, word);
            }
            _ => {
                let other = pick(rng, corpus);
                bytes.truncate(at);
                bytes.extend(&other[rng.usize(..=other.len())..]);
            }
        }
        bytes.truncate(LONGEST);
    }
    bytes
}
