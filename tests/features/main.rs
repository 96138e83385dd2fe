//! What a build says of the features that it lacks. Builds with all of them, and builds with none, both pass.

use std::process::{Command, Output};

/// Runs the program far away from any store.
fn lazystore(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lazystore"))
        .args(arguments)
        .env_remove("LAZYSTORE_STORE")
        .env("LAZYSTORE_CACHE_DIR", "none")
        .output()
        .expect("the program can be run")
}

/// What it says, and whether that is that `feature` is missing.
fn says_that_it_lacks(feature: &str, arguments: &[&str]) -> (bool, String) {
    let output = lazystore(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?} succeeded");
    let lacks = said.contains(&format!("without the feature \"{feature}\""))
        && said.contains(&format!("--features {feature}"));
    (lacks, said)
}

#[test]
fn an_address_of_a_cloud_names_the_feature_that_it_needs() {
    for address in [
        "objectstore+file:///proc/nonexistent/bucket",
        "bigtable://i?project_id=p&table_name=t&family_name=f",
    ] {
        let (lacks, said) = says_that_it_lacks("cloud", &["--store", address, "ls", "/"]);
        assert_eq!(lacks, cfg!(not(feature = "cloud")), "{said}");
    }
}

#[test]
fn a_subcommand_names_the_feature_that_it_needs() {
    let mount = ["mount", "--list-root", "/proc/nonexistent"];
    let (lacks, said) = says_that_it_lacks("fuse", &mount);
    assert_eq!(lacks, cfg!(not(feature = "fuse")), "{said}");
    let virtiofs = ["virtiofs", "--queues", "2", "/proc/nonexistent/socket"];
    let (lacks, said) = says_that_it_lacks("virtiofs", &virtiofs);
    assert_eq!(lacks, cfg!(not(feature = "virtiofs")), "{said}");
}

#[test]
fn an_option_names_the_feature_that_it_needs() {
    let daemon = ["daemon", "--listen=127.0.0.1:0", "--otlp-endpoint", "no address"];
    let (lacks, said) = says_that_it_lacks("otlp", &daemon);
    assert_eq!(lacks, cfg!(not(feature = "otlp")), "{said}");
}
