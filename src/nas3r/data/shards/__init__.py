"""Videos to training shards: one clip per shot, without what teaches nothing.

Every video becomes one or more tar files (webdataset names, see `nas3r.data.sources.tars`) and a record of
what was made of it. A video whose record is there is done, so an interrupted run goes on where it stopped.
"""

from nas3r.data.shards.options import ShardOptions
from nas3r.data.shards.records import ShardReport, VideoRecord
from nas3r.data.shards.sharding import shard_videos

__all__ = ["ShardOptions", "ShardReport", "VideoRecord", "shard_videos"]
