"""Write Grafana's JSON of all dashboards into `dashboards/grafana`."""

from collections.abc import Mapping
from pathlib import Path

from dashboards import api, classify_embed, gpu, images, models, overview, queues, slo, storage

FOLDER = Path(__file__).parent / "grafana"


def files() -> Mapping[str, str]:
    """The text of each file by its name."""
    parts = (overview, api, queues, images, classify_embed, gpu, models, storage, slo)
    boards = [part.board() for part in parts]
    return {f"{board.name}.json": board.to_json() for board in boards}


def main() -> None:
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
