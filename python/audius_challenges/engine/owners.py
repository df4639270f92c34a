"""Owners of tracks and playlists: of several current versions of one, the same decides as for users (rule 8)."""

from __future__ import annotations


def track_owner(track_id: str, counts: str = "TRUE") -> str:
    """SQL of the owner that the current row of a track names; null if there is none.

    :param track_id: SQL of the id
    :param counts: SQL over `tracks` of which versions count at all
    """
    return _owner("tracks", "owner_id", f"tracks.track_id = {track_id}", counts)


def playlist_owner(playlist_id: str, counts: str = "TRUE") -> str:
    """SQL of the owner that the current row of a playlist or album names; null if there is none."""
    return _owner("playlists", "playlist_owner_id", f"playlists.playlist_id = {playlist_id}", counts)


def _owner(table: str, column: str, is_it: str, counts: str) -> str:
    return f"""(
                        SELECT {table}.{column}
                        FROM discovery.{table}
                        WHERE {is_it}
                            AND {table}.is_current
                            AND {counts}
                        ORDER BY
                            coalesce({table}.blocknumber, 0) DESC,
                            {table}.updated_at DESC,
                            {table}.txhash::text COLLATE "C" DESC
                        LIMIT 1
                    )"""
