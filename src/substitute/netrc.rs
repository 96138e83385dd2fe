//! Names and passwords by host, as in a netrc file.

use std::{collections::HashMap, fmt};

/// The longest file that is read, in bytes.
pub(super) const NETRC_LEN_MAX: u64 = 256 << 10;

/// Whom to be where. Its passwords are in no debug output.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Netrc {
    machines: HashMap<String, Login>,
    default: Option<Login>,
}

/// A name and its password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// Who. May be empty.
    pub name: String,
    /// May be empty.
    pub password: String,
}

/// Why text is no netrc file. It quotes nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetrcError {
    /// A word that names a field is the last one.
    #[error("the netrc file ends behind {0:?}")]
    CutOff(&'static str),
    /// A field before any machine.
    #[error("the netrc file has {0:?} before any machine")]
    NoMachine(&'static str),
    /// A word that names no field.
    #[error(
        "word {0} of the netrc file is none of machine, default, login, password, account, macdef"
    )]
    Word(usize),
    /// A quote without an end.
    #[error("a quote in the netrc file does not end")]
    Quote,
}

impl Netrc {
    /// Reads a file. Of a host that is named twice, the first counts.
    pub fn parse(text: &str) -> Result<Self, NetrcError> {
        let words = words(text)?;
        let mut netrc = Netrc::default();
        let mut current: Option<(Option<String>, Login)> = None;
        let mut at = 0;
        while let Some(word) = words.get(at) {
            let argument = |field| words.get(at + 1).cloned().ok_or(NetrcError::CutOff(field));
            match word.as_str() {
                "machine" => {
                    netrc.enter(current.take());
                    let host = argument("machine")?.to_ascii_lowercase();
                    current = Some((Some(host), Login::default()));
                }
                "default" => {
                    netrc.enter(current.take());
                    current = Some((None, Login::default()));
                    at += 1;
                    continue;
                }
                "login" => {
                    let (_, login) = current.as_mut().ok_or(NetrcError::NoMachine("login"))?;
                    login.name = argument("login")?;
                }
                "password" => {
                    let (_, login) = current.as_mut().ok_or(NetrcError::NoMachine("password"))?;
                    login.password = argument("password")?;
                }
                "account" => drop(argument("account")?),
                _ => return Err(NetrcError::Word(at + 1)),
            }
            at += 2;
        }
        netrc.enter(current);
        Ok(netrc)
    }

    fn enter(&mut self, entry: Option<(Option<String>, Login)>) {
        match entry {
            Some((Some(host), login)) => {
                self.machines.entry(host).or_insert(login);
            }
            Some((None, login)) => {
                self.default.get_or_insert(login);
            }
            None => {}
        }
    }

    /// Whom to be at `host`.
    pub fn login(&self, host: &str) -> Option<&Login> {
        self.machines.get(&host.to_ascii_lowercase()).or(self.default.as_ref())
    }
}

/// The words of the file, without comments and macros.
fn words(text: &str) -> Result<Vec<String>, NetrcError> {
    let mut words = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            if let Some(quoted) = rest.strip_prefix('"') {
                let (word, behind) = quoted_word(quoted)?;
                words.push(word);
                rest = behind.trim_start();
                continue;
            }
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            if word == "macdef" {
                // Up to an empty line.
                lines.by_ref().find(|line| line.is_empty());
                break;
            }
            words.push(word.to_owned());
            rest = behind.trim_start();
        }
    }
    Ok(words)
}

/// A word up to its closing quote, and what follows that.
fn quoted_word(quoted: &str) -> Result<(String, &str), NetrcError> {
    let mut word = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((word, &quoted[at + 1..])),
            '\\' => word.push(characters.next().ok_or(NetrcError::Quote)?.1),
            other => word.push(other),
        }
    }
    Err(NetrcError::Quote)
}

impl fmt::Debug for Netrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.machines.keys()).finish()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:…", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(name: &str, password: &str) -> Login {
        Login { name: name.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn machines_are_found_by_name() {
        let text = "# comment\nmachine A.example login me password s3c#ret # more\n\
                    machine b.example\n  login \"you there\" account x\n  password \"a\\\"b\"\n\
                    macdef init\nmachine evil login x\n\nmachine a.example login late password late\n\
                    default login anonymous password guest\n";
        let netrc = Netrc::parse(text).expect("legal");
        assert_eq!(netrc.login("a.example"), Some(&login("me", "s3c#ret")));
        assert_eq!(netrc.login("B.EXAMPLE"), Some(&login("you there", "a\"b")));
        assert_eq!(netrc.login("evil"), Some(&login("anonymous", "guest")));
        assert_eq!(Netrc::parse("").expect("legal").login("a.example"), None);
        assert!(!format!("{netrc:?}{:?}", netrc.login("a.example")).contains("s3c"), "{netrc:?}");
    }

    #[test]
    fn everything_else_is_refused_without_quoting_it() {
        for (text, error) in [
            ("login x", NetrcError::NoMachine("login")),
            ("machine", NetrcError::CutOff("machine")),
            ("machine a password", NetrcError::CutOff("password")),
            ("machine a secret", NetrcError::Word(3)),
            ("machine a password \"x", NetrcError::Quote),
            ("machine a password \"x\\", NetrcError::Quote),
        ] {
            assert_eq!(Netrc::parse(text), Err(error), "{text}");
        }
    }
}
