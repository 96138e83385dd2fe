//! Beside the real Nix: the same store paths, the same archives.

use std::{fs, process::Command};

use lazystore::{
    castore::Node,
    ingest::{Progress, import_tree},
    render::{RenderNar, write_nar},
    service::{
        Stores, blob::backend::MemoryBlobs, directory::backend::MemoryDirectories,
        pathinfo::backend::MemoryPathInfos,
    },
};

use crate::{
    real_nix::{nix, shapes},
    support::{have_program, lazystore, run, sample_tree},
};

#[test]
fn import_prints_what_nix_store_add_prints() {
    if !have_program("nix-store") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let inputs = dir.path().join("inputs");
    fs::create_dir(&inputs).expect("new");
    let shapes = shapes(&inputs);
    assert!(shapes.len() >= 50, "{}", shapes.len());
    let sample = inputs.join("sample");
    sample_tree(&sample);
    // Nix limits the depth of archives; ours reaches beyond.
    fs::remove_dir_all(sample.join("deep")).expect("ours");

    let mut command = lazystore(&dir.path().join("store"));
    let ours = run(command.arg("import").args(&shapes).arg(&sample)).stdout;
    let mut command = nix("nix-store", &dir.path().join("nix"));
    let theirs = run(command.arg("--add").args(&shapes).arg(&sample)).stdout;
    let lines = |bytes: &[u8]| -> Vec<String> {
        String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
    };
    for ((ours, theirs), shape) in lines(&ours).iter().zip(lines(&theirs)).zip(&shapes) {
        assert_eq!(*ours, theirs, "{shape:?}");
    }
    assert_eq!(lines(&ours).len(), shapes.len() + 1);
    assert_eq!(lines(&ours), lines(&theirs));
}

#[test]
fn rendered_archives_are_those_of_nix_store_dump() {
    if !have_program("nix-store") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let shapes = shapes(dir.path());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (blobs, directories) =
        (std::sync::Arc::new(MemoryBlobs::new()), std::sync::Arc::new(MemoryDirectories::new()));
    let nars = RenderNar { blobs: blobs.clone(), directories: directories.clone() };
    let stores = Stores {
        blobs: blobs.clone(),
        directories: directories.clone(),
        path_infos: std::sync::Arc::new(MemoryPathInfos::new()),
        nars: std::sync::Arc::new(nars),
    };
    for shape in shapes {
        let progress = Progress::default();
        let import = import_tree(&shape, Some("x"), &stores, runtime.handle(), &progress);
        let import = import.expect("it imports");
        let node: &Node = &import.path_info.node;
        let nar = runtime.block_on(write_nar(&stores.blobs, &stores.directories, node, Vec::new()));
        let nar = nar.expect("it renders");
        let theirs = run(Command::new("nix-store").arg("--dump").arg(&shape)).stdout;
        assert!(nar == theirs, "{shape:?}: {} bytes instead of {}", nar.len(), theirs.len());
        let hash = runtime.block_on(stores.nars.calculate_nar(node)).expect("it renders");
        assert_eq!(hash.size, nar.len() as u64);
        assert_eq!(Some(hash), import.path_info.nar_info().map(|info| info.nar));
    }
}
