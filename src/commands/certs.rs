//! `outrigger certs`: make certificates, and look into them.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use outrigger::certificates::{self, Facts, unix_now, written_date};

use super::rotate::Rotate;
use super::{arguments, output};

/// Make a CA and a certificate for the webhook, or show what is in a certificate
///
/// Writes ca.crt, tls.crt and tls.key. The CA's own key is thrown away: it signs this certificate and no other.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:
  outrigger certs --dns outrigger.outrigger-system.svc --out tls
  outrigger serve --cert tls/tls.crt --key tls/tls.key
  outrigger certs --inspect tls/tls.crt
  outrigger certs rotate

Exit status: 0 done; 1 a file cannot be read or written, or is no certificate; 2 usage.")]
pub(crate) struct Certs {
    #[command(subcommand)]
    action: Option<Action>,
    /// DNS name or address that the certificate is for, such as outrigger.outrigger-system.svc; repeatable
    #[arg(long, value_name = "NAME", required_unless_present_any = ["inspect", "json"], value_parser = certificates::name)]
    dns: Vec<String>,
    /// Folder to write to; files that are there stay, and are an error
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Days that the certificates are valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = arguments::number::<u32>(1..=36_500))]
    days: u32,
    /// Show the certificates in a PEM file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dns", "out", "days"])]
    inspect: Option<PathBuf>,
    /// Show them as JSON
    #[arg(long, requires = "inspect", conflicts_with_all = ["dns", "out", "days"])]
    json: bool,
}

#[derive(Subcommand)]
enum Action {
    Rotate(Rotate),
}

impl Certs {
    /// Makes, or shows.
    ///
    /// # Errors
    /// Files that cannot be read or written, names that cannot stand in a certificate.
    pub(crate) fn run(self) -> Result<(), String> {
        match (&self.action, &self.inspect) {
            (Some(Action::Rotate(rotate)), _) => rotate.run(),
            (None, Some(file)) => inspect(file, self.json),
            (None, None) => self.make(),
        }
    }

    fn make(&self) -> Result<(), String> {
        let names = self.dns.join(", ");
        let made = certificates::make(&self.dns, self.days, unix_now()).map_err(|e| format!("--dns: {e}"))?;
        std::fs::create_dir_all(&self.out)
            .map_err(|e| format!("cannot make the folder {} (--out): {e}", self.out.display()))?;
        let files = [
            ("ca.crt", &made.ca, 0o644, "the CA; its base64 is the webhook configuration's caBundle"),
            ("tls.crt", &made.certificate, 0o644, "for outrigger serve --cert"),
            ("tls.key", &made.key, 0o600, "for outrigger serve --key; keep it secret"),
        ];
        for (name, contents, mode, purpose) in files {
            let path = self.out.join(name);
            let create = || -> std::io::Result<()> {
                let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
                file.write_all(contents.as_bytes())
            };
            create().map_err(|e| match e.kind() {
                ErrorKind::AlreadyExists => {
                    format!(
                        "{} is there already and stays; move it away, or give another folder by --out",
                        path.display()
                    )
                }
                _ => format!("cannot write {}: {e}", path.display()),
            })?;
            eprintln!("{}  {purpose}", path.display());
        }
        eprintln!("valid for {names} until {}", written_date(unix_now() + i64::from(self.days) * DAY));
        Ok(())
    }
}

const DAY: i64 = 86_400;

fn inspect(file: &Path, json: bool) -> Result<(), String> {
    let place = file.display();
    let pem = std::fs::read(file).map_err(|e| format!("cannot read {place}: {e}"))?;
    let chain = certificates::chain(&pem).map_err(|e| format!("{place}: {e}"))?;
    let found: Result<Vec<_>, _> = chain.iter().map(|certificate| certificates::facts(certificate)).collect();
    let found = found.map_err(|e| format!("{place}: {e}"))?;
    let text = if json {
        serde_json::to_string_pretty(&found).map_err(|e| e.to_string())?
    } else {
        found.iter().map(show).collect::<Vec<_>>().join("\n\n")
    };
    output::write(None, format!("{text}\n").as_bytes())
}

fn show(facts: &Facts) -> String {
    let left = facts.not_after - unix_now();
    let state = match left {
        ..=0 => format!("expired {} days ago", -left / DAY),
        _ => format!("{} days left", (left + DAY - 1) / DAY),
    };
    let names = if facts.names.is_empty() { "(none)".to_owned() } else { facts.names.join(", ") };
    format!(
        "subject  {}{}\nissuer   {}\nnames    {names}\nfrom     {}\nuntil    {} ({state})",
        facts.subject,
        if facts.ca { " (a CA)" } else { "" },
        facts.issuer,
        written_date(facts.not_before),
        written_date(facts.not_after),
    )
}
