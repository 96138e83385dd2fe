//! A virtual machine with a Debian kernel and busybox, under emulation: no `/dev/kvm` is needed.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    kernel::Kernel,
    support::{have, have_program},
};

/// How long a guest may take, from switching on to switching off. Everything in it is emulated.
const PATIENCE: Duration = Duration::from_secs(240);

/// In the order in which they need each other.
const MODULES: &[&str] = &[
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "fs/fuse/fuse.ko",
    "fs/fuse/virtiofs.ko",
];

/// Whether guests can be had.
pub fn can_boot() -> bool {
    have("a kernel for guests (linux-image-cloud-amd64)", Kernel::find(MODULES).is_some())
        && have_program("qemu-system-x86_64")
        && have_program("busybox")
        && have_program("cpio")
        && have_program("gzip")
}

/// An initramfs that mounts the tag `store` on `/mnt` and runs `script` there.
fn initramfs(kernel: &Kernel, folder: &Path, script: &str) -> PathBuf {
    let root = folder.join("root");
    for directory in ["bin", "dev", "etc", "lib", "mnt", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory)).expect("a folder can be made");
    }
    fs::copy(find_program("busybox"), root.join("bin/busybox")).expect("it can be copied");
    let _ = symlink("busybox", root.join("bin/sh"));
    let mut init = String::from(
        "#!/bin/sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\n\
         mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev\n",
    );
    for module in MODULES {
        let name = Path::new(module).file_name().expect("a file");
        fs::copy(kernel.modules.join(module), root.join("lib").join(name)).expect("a copy");
        init += &format!("insmod /lib/{}\n", name.display());
    }
    init += "mount -t virtiofs store /mnt && echo MOUNTED\ncd /mnt\n. /script\n\
             cd /\nsync\necho DONE\npoweroff -f\n";
    fs::write(root.join("init"), init).expect("it can be written");
    fs::write(root.join("script"), script).expect("it can be written");
    let image = folder.join("initramfs.gz");
    let pack = "chmod 755 init && find . | cpio -o -H newc --quiet | gzip -1 >../initramfs.gz";
    let packed = Command::new("sh").args(["-c", pack]).current_dir(&root).status();
    assert!(packed.expect("a shell").success(), "the initramfs is packed");
    image
}

fn find_program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()).expect(name)
}

/// A machine that is switched on, and off when the test ends, however it ends.
pub struct Machine {
    child: Child,
    console: ChildStdin,
    lines: mpsc::Receiver<String>,
    pub log: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Machine {
    /// Boots, mounts what is served at `socket`, and runs `script`, for busybox's shell, in the root of the mount.
    pub fn boot(socket: &Path, queues: usize, script: &str) -> Self {
        let kernel = Kernel::find(MODULES).expect("can_boot() was asked");
        let folder = tempfile::tempdir().expect("a folder");
        let initramfs = initramfs(&kernel, folder.path(), script);
        let mut child = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "256"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-object", "memory-backend-memfd,id=mem,size=256M,share=on"])
            .args(["-machine", "q35,memory-backend=mem"])
            .arg("-kernel")
            .arg(kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            .arg("-append")
            .arg(
                "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off nokaslr tsc=reliable \
                 random.trust_cpu=on",
            )
            .args(["-serial", "stdio"])
            .args(["-chardev", &format!("socket,id=c0,path={}", socket.display())])
            .arg("-device")
            .arg(format!(
                "vhost-user-fs-pci,chardev=c0,tag=store,queue-size=1024,num-request-queues={queues}"
            ))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("qemu can be run");
        let (send, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("it is a pipe"));
        thread::spawn(move || {
            for line in stdout.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let console = child.stdin.take().expect("it is a pipe");
        Machine { child, console, lines, log: Vec::new(), _folder: folder }
    }

    /// Waits for a line that is `text`, and returns those before it.
    pub fn wait_for(&mut self, text: &str) -> Vec<String> {
        let (deadline, first) = (Instant::now() + PATIENCE, self.log.len());
        while let Ok(line) =
            self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            let found = line == text;
            self.log.push(line);
            if found {
                return self.log[first..self.log.len() - 1].to_vec();
            }
        }
        panic!("the guest did not say {text:?}; it said:\n{}", self.log.join("\n"));
    }

    /// Waits until it has switched itself off. Returns what its script said.
    pub fn finish(mut self) -> Vec<String> {
        self.wait_for("MOUNTED");
        let said = self.wait_for("DONE");
        self.child.wait().expect("it ends");
        said
    }

    /// Types a line at its console.
    pub fn type_line(&mut self, line: &str) {
        writeln!(self.console, "{line}").expect("it listens");
    }

    /// As if its host pulled the plug.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
