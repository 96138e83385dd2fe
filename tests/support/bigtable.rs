//! A Bigtable emulator, a table in it, and rows as nobody should write them.
#![allow(dead_code)] // Each binary uses its part.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use lazystore::service::bigtable::{BigtableOptions, CHANNELS_DEFAULT, DEADLINE_DEFAULT};

use crate::support::{have, have_program, run};

const PROJECT: &str = "project-1";
const INSTANCE: &str = "instance-1";
pub const TABLE: &str = "table-1";
pub const FAMILY: &str = "cf1";

/// Where the emulator lies if it is not on the PATH.
const EMULATOR_PATH: &str = "/usr/lib/google-cloud-sdk/platform/bigtable-emulator/cbtemulator";

fn emulator() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("cbtemulator"));
    on_path.chain([Path::new(EMULATOR_PATH).to_owned()]).find(|program| program.is_file())
}

/// Whether tests that need the emulator may run.
pub fn have_emulator() -> bool {
    have("cbtemulator (the emulator of Bigtable)", emulator().is_some()) && have_program("cbt")
}

/// The emulator, until it is dropped. What it holds is in its memory.
pub struct Emulator {
    child: Child,
    pub address: SocketAddr,
}

impl Emulator {
    /// Starts one with an empty table. `None` if there is none here.
    pub fn start() -> Option<Self> {
        let this = Self::start_at("127.0.0.1:0")?;
        this.create_table(TABLE, FAMILY);
        Some(this)
    }

    /// Starts one, without a table, that listens there.
    pub fn start_at(address: &str) -> Option<Self> {
        if !have_emulator() {
            return None;
        }
        let mut child = Command::new(emulator()?)
            .args(["-address", address])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        let address = line.trim_end().rsplit(' ').next().and_then(|address| address.parse().ok());
        Some(Emulator { child, address: address.unwrap_or_else(|| panic!("it said {line:?}")) })
    }

    pub fn create_table(&self, table: &str, family: &str) {
        self.cbt(&["createtable", table, &format!("families={family}:maxversions=9")]);
    }

    /// Runs `cbt` on the instance.
    pub fn cbt(&self, args: &[&str]) -> String {
        let output = run(Command::new("cbt")
            .args(["-project", PROJECT, "-instance", INSTANCE])
            .args(args)
            .env("BIGTABLE_EMULATOR_HOST", self.address.to_string()));
        String::from_utf8(output.stdout).expect("text")
    }

    /// How to reach the table.
    pub fn options(&self) -> BigtableOptions {
        options(self.address)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How to reach the table of the emulator at `address`, or behind it.
pub fn options(address: SocketAddr) -> BigtableOptions {
    BigtableOptions {
        project: PROJECT.to_owned(),
        instance: INSTANCE.to_owned(),
        table: TABLE.to_owned(),
        family: FAMILY.to_owned(),
        app_profile: String::new(),
        channels: CHANNELS_DEFAULT,
        deadline: DEADLINE_DEFAULT,
        is_read_only: false,
        emulator: Some(address.to_string()),
        is_offline: false,
    }
}

/// The address of the table, for the program. It has to have `BIGTABLE_EMULATOR_HOST` as well.
pub fn address() -> String {
    format!(
        "bigtable://{INSTANCE}?project_id={PROJECT}&table_name={TABLE}&family_name={FAMILY}&timeout=5s"
    )
}
