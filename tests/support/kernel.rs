//! A kernel for machines under emulation.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a machine boots from.
pub struct Kernel {
    pub image: PathBuf,
    pub modules: PathBuf,
}

impl Kernel {
    /// One that has these modules: `.ci/run` unpacks one into `target/guest-kernel`; an installed one will do, too.
    pub fn find(modules: &[&str]) -> Option<Self> {
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guest-kernel");
        [unpacked.as_path(), Path::new("/")]
            .into_iter()
            .find_map(|root| Self::find_in(root, modules))
    }

    fn find_in(root: &Path, wanted: &[&str]) -> Option<Self> {
        fs::read_dir(root.join("boot")).ok()?.flatten().find_map(|file| {
            let name = file.file_name().into_string().ok()?;
            let version = name.strip_prefix("vmlinuz-")?;
            let modules = root.join("lib/modules").join(version).join("kernel");
            let all = wanted.iter().all(|module| modules.join(module).is_file());
            all.then(|| Kernel { image: file.path(), modules })
        })
    }
}
