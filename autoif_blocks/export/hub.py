"""A folder into a data set's repository on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from ..errors import StopRun


def push(folder: Path, repository: str, public: bool) -> str:
    """Uploads the folder in one commit; a repository that is not there is made, private unless `public`.

    The address is that of `HF_ENDPOINT`, the key that of `HF_TOKEN` or of `hf auth login`.

    Raises:
        StopRun: the Hub refuses, or cannot be reached; nothing is half there.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    api = HfApi(library_name="autoif-blocks")
    try:
        made = api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, repo_type="dataset", commit_message="Export of an AutoIF run"
        )
        return str(made)
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise StopRun(f"cannot push to {repository}: {said[:500]}; is HF_TOKEN set, and may it write there?") from error
