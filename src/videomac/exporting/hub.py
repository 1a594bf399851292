"""Upload of an export."""

from __future__ import annotations

from pathlib import Path

from videomac.errors import UserError
from videomac.exporting.formats import WEIGHTS

ON_HUB = ["README.md", "export.json", "config.json", *WEIGHTS.values()]


def push(out: Path, repo: str) -> str:
    """Upload weights, model card and report to the Hugging Face hub; the repository is made if there is none.

    Args:
        out: folder of an export; its config.yaml, which names local paths, stays here.
        repo: "user/name".

    Returns:
        the address of the repository.

    Raises:
        UserError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi(library_name="videomac")
    try:
        address = api.create_repo(repo, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id, folder_path=out, allow_patterns=ON_HUB, commit_message="Export from videomac"
        )
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"could not push to {repo} ({reason}): the export itself is complete in {out}; log in with "
            "`hf auth login`, or check the name"
        ) from error
    return str(address)
