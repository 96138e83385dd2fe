//! Restricted views: nothing but what is visible can be reached, by whatever a kernel may send.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::File,
    io,
    sync::Arc,
};

use lazystore::{
    castore::{Directory, Name, Node, SizeRule},
    mount::{
        fuse::{Fuse, Kernel, Outcome},
        wire::{IN_HEADER_LEN, Request, op},
    },
    nix::{Details, PathInfo, StorePath, StorePathDigest},
    render::RenderNar,
    service::{
        Stores,
        blob::{BlobService as _, backend::MemoryBlobs},
        directory::{DirectoryService as _, backend::MemoryDirectories},
        pathinfo::{PathInfoService as _, backend::MemoryPathInfos},
    },
    vfs::{Ino, Options, Tree, Vfs, Visible},
};
use tokio::runtime::Runtime;

const STORE_PATHS: u8 = 60;
const VIEWS: u8 = 50;
const ROOT: u64 = 1;

/// The kernel of somebody who sends what he likes.
#[derive(Debug)]
struct Forger;

impl Kernel for Forger {
    fn hears(&self) -> bool {
        true
    }

    fn forget_listing(&self, _: Ino) {}

    fn open_backing(&self, _: &File) -> io::Result<u32> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn close_backing(&self, _: u32) {}
}

fn store_path(number: u8) -> StorePath {
    StorePath::new(StorePathDigest::from([number; 20]), "x").expect("legal")
}

/// Each store path has a file that only it has, one that all have, a directory, and a link to the next store path.
async fn stores() -> Stores {
    let blobs = Arc::new(MemoryBlobs::new());
    let directories = Arc::new(MemoryDirectories::new());
    let path_infos = Arc::new(MemoryPathInfos::new());
    for number in 0..STORE_PATHS {
        let mut inner = Directory::builder();
        for (name, contents) in [("own", vec![number; 100]), ("shared", vec![0xff; 100])] {
            let size = contents.len() as u64;
            let digest = blobs.put(contents.into()).await.expect("it stores").digest;
            inner.add(
                Name::try_from(name).expect("legal"),
                Node::File { digest, size, executable: false },
            );
        }
        let inner = Arc::new(inner.build().expect("legal"));
        directories.put(inner.clone()).await.expect("it stores");
        let next = format!("../{}", store_path((number + 1) % STORE_PATHS));
        let mut outer = Directory::builder();
        outer.add(Name::try_from("inner").expect("legal"), inner.node(SizeRule::Documented));
        let target = next.as_bytes().try_into().expect("legal");
        outer.add(Name::try_from("next").expect("legal"), Node::Symlink { target });
        let outer = Arc::new(outer.build().expect("legal"));
        directories.put(outer.clone()).await.expect("it stores");
        let info = PathInfo {
            store_path: store_path(number),
            node: outer.node(SizeRule::Documented),
            details: Details::References(Vec::new()),
        };
        path_infos.put(info).await.expect("it stores");
    }
    let nars = Arc::new(RenderNar { blobs: blobs.clone(), directories: directories.clone() });
    Stores { blobs, directories, path_infos, nars }
}

/// One view, and the requests that its kernel sends.
struct Client {
    fuse: Arc<Fuse>,
    /// The numbers that it was given, with the path to each.
    given: BTreeMap<u64, String>,
}

impl Client {
    fn new(tree: &Arc<Tree>, visible: Visible) -> Self {
        let options = Options { list_root: true, show_xattr: true };
        let vfs = Arc::new(Vfs::of(tree.clone(), visible, options));
        let fuse = Arc::new(Fuse::new(vfs, Arc::new(Forger)));
        fuse.open_files();
        Client { fuse, given: BTreeMap::new() }
    }

    /// Sends a request. The reply without its header, or an errno value.
    fn send(
        &self,
        runtime: &Runtime,
        opcode: u32,
        nodeid: u64,
        fields: &[u8],
    ) -> Result<Vec<u8>, i32> {
        let mut message = Vec::new();
        message.extend(((IN_HEADER_LEN + fields.len()) as u32).to_ne_bytes());
        message.extend(opcode.to_ne_bytes());
        message.extend(7u64.to_ne_bytes());
        message.extend(nodeid.to_ne_bytes());
        message.extend([0; 16]);
        message.extend(fields);
        let _context = runtime.enter();
        let reply = match self.fuse.handle(Request::parse(&message).expect("legal")) {
            Outcome::Reply(reply) => reply,
            Outcome::Later { reply, .. } => runtime.block_on(reply),
            Outcome::ReadLocal { blob, len, .. } => {
                let mut bytes = vec![0; 16 + len];
                blob.read_exact_once_at(&mut bytes[16..], 0).expect("it reads");
                return Ok(bytes.split_off(16));
            }
            Outcome::Silence => return Ok(Vec::new()),
            Outcome::Interrupt { .. } | Outcome::End(_) => unreachable!("not asked for"),
        };
        match i32::from_ne_bytes(reply[4..8].try_into().expect("4 bytes")) {
            0 => Ok(reply[16..].to_vec()),
            error => Err(-error),
        }
    }

    fn lookup(
        &mut self,
        runtime: &Runtime,
        parent: u64,
        name: &str,
        path: &str,
    ) -> Result<u64, i32> {
        let found = self.send(runtime, op::LOOKUP, parent, &[name.as_bytes(), &[0]].concat())?;
        let ino = u64::from_ne_bytes(found[..8].try_into().expect("8 bytes"));
        self.given.insert(ino, path.to_owned());
        Ok(ino)
    }

    /// The names that the root lists, read in pages of `len` bytes.
    fn root_names(&self, runtime: &Runtime, opcode: u32, len: u32) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut offset = 0u64;
        let entry_len = if opcode == op::READDIRPLUS { 128 } else { 0 };
        loop {
            let fields =
                [&0u64.to_ne_bytes()[..], &offset.to_ne_bytes(), &len.to_ne_bytes(), &[0; 20]];
            let page = self.send(runtime, opcode, ROOT, &fields.concat()).expect("the root lists");
            if page.is_empty() {
                return names;
            }
            let mut rest = &page[..];
            while !rest.is_empty() {
                let entry = &rest[entry_len..];
                offset = u64::from_ne_bytes(entry[8..16].try_into().expect("8 bytes"));
                let name_len = u32::from_ne_bytes(entry[16..20].try_into().expect("4")) as usize;
                let name = String::from_utf8(entry[24..24 + name_len].to_vec()).expect("ASCII");
                rest = &entry[(24 + name_len).next_multiple_of(8)..];
                if name != "." && name != ".." {
                    assert!(names.insert(name), "it is listed twice");
                }
            }
        }
    }

    /// Looks at all that is visible.
    fn walk(&mut self, runtime: &Runtime, visible: &HashSet<StorePath>) {
        for store_path in visible {
            let name = store_path.to_string();
            let outer = self.lookup(runtime, ROOT, &name, &name).expect("it is visible");
            let inner = self.lookup(runtime, outer, "inner", &format!("{name}/inner"));
            let inner = inner.expect("it is visible");
            self.lookup(runtime, outer, "next", "a link").expect("it is visible");
            for file in ["own", "shared"] {
                let path = format!("{name}/inner/{file}");
                self.lookup(runtime, inner, file, &path).expect("it is visible");
            }
        }
    }
}

/// All that can be asked about a number.
fn requests() -> Vec<(u32, Vec<u8>)> {
    let read = [&[0; 16][..], &100u32.to_ne_bytes(), &[0; 20]].concat();
    let listing = [&[0; 16][..], &4096u32.to_ne_bytes(), &[0; 20]].concat();
    let attribute =
        |name: &str| [&4096u32.to_ne_bytes()[..], &[0; 4], name.as_bytes(), &[0]].concat();
    vec![
        (op::GETATTR, vec![0; 16]),
        (op::READLINK, Vec::new()),
        (op::OPEN, vec![0; 8]),
        (op::READ, read),
        (op::READDIR, listing.clone()),
        (op::READDIRPLUS, listing),
        (op::GETXATTR, attribute("user.snix.castore.directory.digest")),
        (op::GETXATTR, attribute("user.tvix.castore.blob.digest")),
        (op::LISTXATTR, [&4096u32.to_ne_bytes()[..], &[0; 4]].concat()),
        (op::LOOKUP, b".\0".to_vec()),
        (op::LOOKUP, b"..\0".to_vec()),
        (op::LOOKUP, b"inner\0".to_vec()),
        (op::LOOKUP, b"own\0".to_vec()),
    ]
}

fn visible_to(view: u8) -> HashSet<StorePath> {
    [view, view + 3, view.wrapping_mul(7)]
        .into_iter()
        .map(|n| store_path(n % STORE_PATHS))
        .collect()
}

#[test]
fn fifty_views_of_one_tree_reach_nothing_of_each_other() {
    let runtime = Runtime::new().expect("a runtime");
    let tree = Arc::new(Tree::new(&runtime.block_on(stores())));
    let mut clients: Vec<_> = (0..VIEWS)
        .map(|view| (Client::new(&tree, Visible::only(visible_to(view))), visible_to(view)))
        .collect();
    // Everything is known to the tree, through a view of everything, before anybody tries.
    let mut all = Client::new(&tree, Visible::Everything);
    let everything: HashSet<_> = (0..STORE_PATHS).map(store_path).collect();
    all.walk(&runtime, &everything);
    for (client, visible) in &mut clients {
        client.walk(&runtime, visible);
    }
    for (client, visible) in &mut clients {
        for number in 0..=u8::MAX {
            let name = store_path(number).to_string();
            let found = client.lookup(&runtime, ROOT, &name, &name);
            match visible.contains(&store_path(number)) {
                true => assert!(found.is_ok()),
                false => assert_eq!(found, Err(libc::ENOENT), "{name}"),
            }
        }
        let names: BTreeSet<_> = visible.iter().map(StorePath::to_string).collect();
        for (opcode, len) in [(op::READDIR, 80), (op::READDIR, 65_536), (op::READDIRPLUS, 4096)] {
            assert_eq!(client.root_names(&runtime, opcode, len), names);
        }
        let statfs = client.send(&runtime, op::STATFS, ROOT, &[]).expect("it tells");
        let files = u64::from_ne_bytes(statfs[24..32].try_into().expect("8 bytes"));
        assert_eq!(files, client.given.len() as u64 + 1, "what others know is nobody's business");
        for (number, path) in all.given.iter().filter(|(ino, _)| !client.given.contains_key(ino)) {
            for (opcode, fields) in requests() {
                let reply = client.send(&runtime, opcode, *number, &fields);
                assert_eq!(reply.err(), Some(libc::ESTALE), "request {opcode} about {path}");
            }
            // Nor can it take from others what they know.
            client.send(&runtime, op::FORGET, *number, &u64::MAX.to_ne_bytes()).expect("silence");
        }
    }
    for (client, _) in &clients {
        for number in client.given.keys() {
            client.send(&runtime, op::GETATTR, *number, &[0; 16]).expect("it is its own");
        }
    }
    drop(clients);
    assert_eq!(tree.inodes().len(), all.given.len(), "who goes takes along what it was given");
    drop(all);
    assert!(tree.inodes().is_empty());
}

#[test]
fn a_view_of_everything_lists_only_what_was_looked_up_through_it() {
    let runtime = Runtime::new().expect("a runtime");
    let tree = Arc::new(Tree::new(&runtime.block_on(stores())));
    let options = Options { list_root: false, show_xattr: true };
    let view = || Arc::new(Vfs::of(tree.clone(), Visible::Everything, options));
    let (one, other) = (view(), view());
    let name = store_path(1).to_string();
    runtime.block_on(one.lookup(Ino::ROOT, name.as_bytes())).expect("it is there");
    let count = |vfs: &Arc<Vfs>| {
        runtime.block_on(async {
            let mut listing = vfs.root_listing().await;
            listing.begin();
            let mut count = 0;
            while listing.get(count).await.expect("it lists").is_some() {
                count += 1;
            }
            count
        })
    };
    assert_eq!((count(&one), count(&other)), (1, 0));
}
