//! `outrigger certs`: make certificates, and look into them.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use outrigger::certificates::{self, Facts, unix_now, written_date};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::rotate::Rotate;

/// Make a CA and a certificate for the webhook, or show what is in a certificate
///
/// Writes ca.crt, tls.crt and tls.key. The CA's own key is thrown away: it signs this certificate and no other.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Certs {
    #[command(subcommand)]
    action: Option<Action>,
    /// DNS name or address that the certificate is for, such as outrigger.outrigger-system.svc; repeatable
    #[arg(long, value_name = "NAME", required_unless_present = "inspect")]
    dns: Vec<String>,
    /// Folder to write to; files that are there stay, and are an error
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Days that the certificates are valid
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    days: u32,
    /// Show the certificates in a PEM file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dns", "out", "days"])]
    inspect: Option<PathBuf>,
    /// Show them as JSON
    #[arg(long, requires = "inspect")]
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
        std::fs::create_dir_all(&self.out).map_err(|e| format!("--out {}: {e}", self.out.display()))?;
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
            create().map_err(|e| format!("cannot write {}: {e}", path.display()))?;
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
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| format!("{place}: {e}"))?;
        found.push(certificates::facts(&certificate).map_err(|e| format!("{place}: {e}"))?);
    }
    if found.is_empty() {
        return Err(format!("{place}: no certificate in PEM form is in it"));
    }
    let text = if json {
        serde_json::to_string_pretty(&found).map_err(|e| e.to_string())?
    } else {
        found.iter().map(show).collect::<Vec<_>>().join("\n\n")
    };
    writeln!(std::io::stdout(), "{text}").map_err(|e| format!("cannot write to stdout: {e}"))
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
