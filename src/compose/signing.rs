//! What is written gets signatures.

use std::{path::PathBuf, sync::Arc};

use super::{Error, secrets::read};
use crate::{
    nix::SecretKey,
    service::pathinfo::{PathInfoService, layer::SignedPathInfos},
};

/// Signs by the keys in `files` what is put into `path_infos`.
pub(super) fn signed(
    path_infos: Arc<dyn PathInfoService>,
    files: &[PathBuf],
) -> Result<Arc<dyn PathInfoService>, Error> {
    if files.is_empty() {
        return Ok(path_infos);
    }
    let keys = files.iter().map(|file| {
        let text = read(file).map_err(|source| Error::SignKeyFile { source })?;
        let key = String::from_utf8_lossy(&text).trim().parse::<SecretKey>();
        key.map_err(|source| Error::SignKey { file: file.clone(), source })
    });
    Ok(Arc::new(SignedPathInfos::new(path_infos, keys.collect::<Result<_, _>>()?)))
}
