//! The bodies that rows of an export name, told from the rows themselves: a backup stores just these rows and needs just
//! these bodies, whatever the database holds by now.

use crate::{
    BlockPart,
    error::CatalogError,
    export::{Row, rows_of},
    row,
};
use raft_types::BodyRef;

/// The bodies that the rows of `piece` name.
pub(crate) fn bodies_of(piece: &[u8]) -> Result<Vec<BodyRef>, CatalogError> {
    let mut found = Vec::new();
    for row in rows_of(piece).map_err(|error| CatalogError::Damaged(error.to_string()))? {
        let blocks = match &row {
            Row::Instance(instance) => &instance.content.blocks,
            Row::Version(version) => &version.content.blocks,
            Row::Rejection(rejection) => &rejection.blocks,
            Row::Upload(upload) => {
                let length_bytes = u32::try_from(upload.length)
                    .map_err(|_| CatalogError::Damaged("the length of a block of an upload".into()))?;
                found.push(BodyRef { index: upload.idx.cast_unsigned(), length_bytes });
                continue;
            }
            Row::Patient(_)
            | Row::Study(_)
            | Row::Series(_)
            | Row::EndedUpload { .. }
            | Row::Tombstone(_)
            | Row::DeletedStore { .. }
            | Row::Record(_)
            | Row::RemovedRecord { .. }
            | Row::Canonical(_) => continue,
        };
        let blocks: Vec<BlockPart> = row::decode("the blocks of an instance", blocks)?;
        found.extend(blocks.iter().map(|part| BodyRef { index: part.index, length_bytes: part.length_bytes }));
    }
    found.retain(|body| body.length_bytes > 0);
    Ok(found)
}
