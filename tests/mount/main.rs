//! Real mounts, by the real program or by a session in this process, seen through the real kernel.

#[path = "../support/supervisor.rs"]
mod supervisor;
#[path = "../support/mod.rs"]
mod support;

mod accesses;
mod attributes;
mod building;
mod cached;
mod contents;
mod io_modes;
mod lifecycle;
mod restricted;
mod root;
mod sandboxes;
mod views;
mod waiting;
