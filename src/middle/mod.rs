//! The tiers between the caches and the pages.

pub mod back_end;
pub mod central_free_list;
pub mod claim;
pub mod of_class;
pub mod shards;
pub mod spare_arrays;
pub mod spare_bitmaps;
pub mod tables;
pub mod topology;
pub mod transfer_cache;
pub mod transfer_caches;
