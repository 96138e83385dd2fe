//! Lists of store paths as JSON.

use serde_json::{Map, Value, json};

use super::{EntryProblem, ListedPath, PathListError, derivation, sha256, store_path};
use crate::nix::{Ca, NarHash, NarInfo, NixHash, STORE_DIR, Signature, StorePath};

type Object = Map<String, Value>;

/// The newest version of the format that is known.
const VERSION_MAX: u64 = 3;

/// Where structured attributes name the graphs that were asked for.
const GRAPHS: &str = "exportReferencesGraph";

/// The name of the graph where nothing names it.
const GRAPH_DEFAULT: &str = "closure";

/// Reads any of the JSON forms.
pub(super) fn read(text: &[u8]) -> Result<Vec<ListedPath>, PathListError> {
    match serde_json::from_slice(text)? {
        Value::Array(entries) => list("", &entries),
        Value::Object(object) => match (object.get("info"), object.get("version")) {
            (Some(Value::Object(infos)), Some(version)) => {
                check_version(version)?;
                map(infos, object.get("storeDir"))
            }
            _ if graph_names(&object).next().is_some() => {
                let graphs = graph_names(&object).map(|name| graph(&object, name));
                Ok(graphs.collect::<Result<Vec<_>, _>>()?.concat())
            }
            _ => map(&object, None),
        },
        _ => Err(PathListError::Format),
    }
}

/// The names of the graphs in structured attributes: none if it is something else.
fn graph_names(object: &Object) -> impl Iterator<Item = &str> {
    let named = object.get(GRAPHS).and_then(Value::as_object);
    let default = (named.is_none() && object.get(GRAPH_DEFAULT).is_some_and(Value::is_array))
        .then_some(GRAPH_DEFAULT);
    named.into_iter().flat_map(Map::keys).map(String::as_str).chain(default)
}

fn graph(object: &Object, name: &str) -> Result<Vec<ListedPath>, PathListError> {
    match object.get(name) {
        Some(Value::Array(entries)) => list(name, entries),
        Some(_) | None => Err(wrong(name, EntryProblem::Kind("the graph", "a list"))),
    }
}

fn check_version(version: &Value) -> Result<(), PathListError> {
    match version.as_u64() {
        Some(1..=VERSION_MAX) => Ok(()),
        Some(_) | None => Err(PathListError::Version(short(&version.to_string()))),
    }
}

/// A list whose entries have a `path`. `name` is that of the graph, for errors.
fn list(name: &str, entries: &[Value]) -> Result<Vec<ListedPath>, PathListError> {
    let read = |(number, value): (usize, &Value)| {
        let here = || format!("{name}[{number}]");
        let Some(object) = value.as_object() else {
            return Err(wrong(here(), EntryProblem::Kind("the entry", "an object")));
        };
        let path = match object.get("path") {
            Some(Value::String(path)) => path,
            Some(_) => return Err(wrong(here(), EntryProblem::Kind("path", "a string"))),
            None => return Err(wrong(here(), EntryProblem::Missing("path"))),
        };
        let path = store_path(path)
            .map_err(|source| wrong(here(), EntryProblem::StorePath { field: "path", source }))?;
        listed(path, object)
    };
    entries.iter().enumerate().map(read).collect()
}

/// An object whose keys are store paths.
fn map(infos: &Object, dir: Option<&Value>) -> Result<Vec<ListedPath>, PathListError> {
    if let Some(dir) = dir {
        store_dir(dir).map_err(|problem| wrong("the list", problem))?;
    }
    let read = |(key, value): (&String, &Value)| {
        let path = match store_path(key) {
            Ok(path) => path,
            // Then most likely it is something else altogether.
            Err(_) if !infos.keys().any(|key| store_path(key).is_ok()) => {
                return Err(PathListError::Shape);
            }
            Err(source) => return Err(PathListError::Key { key: short(key), source }),
        };
        match value {
            Value::Object(object) => listed(path, object),
            Value::Null => Err(wrong(path.absolute(), EntryProblem::NotValid)),
            _ => Err(wrong(path.absolute(), EntryProblem::Kind("the entry", "an object"))),
        }
    };
    infos.iter().map(read).collect()
}

fn listed(store_path: StorePath, object: &Object) -> Result<ListedPath, PathListError> {
    match info(object) {
        Ok(info) => Ok(ListedPath { store_path, info }),
        Err(problem) => Err(wrong(store_path.absolute(), problem)),
    }
}

fn info(object: &Object) -> Result<NarInfo, EntryProblem> {
    // What is absent and what is null are the same here.
    let get = |key: &str| object.get(key).filter(|value| !value.is_null());
    if get("valid").is_some_and(|valid| *valid != Value::Bool(true)) {
        return Err(EntryProblem::NotValid);
    }
    get("storeDir").map_or(Ok(()), store_dir)?;
    let nar_hash = get("narHash").ok_or(EntryProblem::Missing("narHash"))?;
    let nar_size = get("narSize").ok_or(EntryProblem::Missing("narSize"))?;
    let size = nar_size.as_u64().filter(|size| *size > 0);
    let references = get("references").ok_or(EntryProblem::Missing("references"))?;
    Ok(NarInfo {
        nar: NarHash {
            size: size.ok_or(EntryProblem::Number("narSize", 1))?,
            sha256: sha256(hash("narHash", nar_hash)?)?,
        },
        references: each("references", references, |reference| {
            let reference = string("a reference", reference)?;
            store_path(reference)
                .map_err(|source| EntryProblem::StorePath { field: "references", source })
        })?,
        signatures: match get("signatures") {
            Some(signatures) => each("signatures", signatures, signature)?,
            None => Vec::new(),
        },
        deriver: match get("deriver") {
            Some(deriver) => Some(derivation("deriver", string("deriver", deriver)?)?),
            None => None,
        },
        ca: get("ca").map(content_address).transpose()?,
    })
}

fn each<T>(
    field: &'static str,
    value: &Value,
    read: impl Fn(&Value) -> Result<T, EntryProblem>,
) -> Result<Vec<T>, EntryProblem> {
    let values = value.as_array().ok_or(EntryProblem::Kind(field, "a list"))?;
    values.iter().map(read).collect()
}

fn string<'a>(field: &'static str, value: &'a Value) -> Result<&'a str, EntryProblem> {
    value.as_str().ok_or(EntryProblem::Kind(field, "a string"))
}

fn store_dir(value: &Value) -> Result<(), EntryProblem> {
    match string("storeDir", value)? {
        STORE_DIR => Ok(()),
        other => Err(EntryProblem::StoreDir(short(other))),
    }
}

fn hash(field: &'static str, value: &Value) -> Result<NixHash, EntryProblem> {
    let text = string(field, value)?;
    text.parse().map_err(|source| EntryProblem::Hash { field, source })
}

/// `<key>:<base64>`, or since version 3 the two apart.
fn signature(value: &Value) -> Result<Signature, EntryProblem> {
    const KIND: EntryProblem = EntryProblem::Kind("a signature", "a string, or keyName with sig");
    let text = match value {
        Value::String(text) => text.parse()?,
        Value::Object(object) => {
            let get = |key| object.get(key).and_then(Value::as_str).ok_or(KIND);
            format!("{}:{}", get("keyName")?, get("sig")?).parse()?
        }
        _ => return Err(KIND),
    };
    Ok(text)
}

/// As in a narinfo, or since version 2 the method and the hash apart.
fn content_address(value: &Value) -> Result<Ca, EntryProblem> {
    let object = match value {
        Value::String(text) => return Ok(text.parse()?),
        Value::Object(object) => object,
        _ => return Err(EntryProblem::Kind("ca", "a string, or method with hash")),
    };
    let get = |key| object.get(key).ok_or(EntryProblem::Kind("ca", "method with hash"));
    let hash = hash("ca", get("hash")?)?;
    match string("the method of ca", get("method")?)? {
        "flat" => Ok(Ca::Flat(hash)),
        "nar" => Ok(Ca::Nar(hash)),
        "text" => Ok(Ca::Text(sha256(hash)?)),
        other => Err(EntryProblem::Method(short(other))),
    }
}

fn wrong(path: impl Into<String>, problem: EntryProblem) -> PathListError {
    PathListError::Entry { path: path.into(), problem }
}

/// Something of the list, short enough for an error.
fn short(text: &str) -> String {
    const CHARACTERS_MAX: usize = 300;
    text.chars().take(CHARACTERS_MAX).collect()
}

/// What Nix keeps of a path, in the words that it uses since 2.19.
pub fn to_json(info: &NarInfo) -> Map<String, Value> {
    let references: Vec<_> = info.references.iter().map(StorePath::absolute).collect();
    let signatures: Vec<_> = info.signatures.iter().map(ToString::to_string).collect();
    let mut object = Map::new();
    let mut insert = |key: &str, value: Value| object.insert(key.to_owned(), value);
    insert("narHash", json!(NixHash::Sha256(info.nar.sha256).to_sri()));
    insert("narSize", json!(info.nar.size));
    insert("references", json!(references));
    insert("signatures", json!(signatures));
    if let Some(deriver) = &info.deriver {
        insert("deriver", json!(deriver.absolute()));
    }
    if let Some(ca) = &info.ca {
        insert("ca", json!(ca.to_string()));
    }
    object
}
