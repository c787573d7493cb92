"""MLflow's web application as `ddsp ui` serves it: it opens in its model-training mode.

MLflow 3 has two modes and begins in the one for language-model applications, whatever the experiment says;
the mode is kept in the browser. So the page sets it once, where the browser has none yet.
"""

from __future__ import annotations

import pathlib
from typing import Any

APP = 'ddsp'  # name of the entry point in the group `mlflow.app`, for `mlflow server --app-name`
_MODE = 'mlflow.workflowType_v1'  # as MLflow's pages name it in the browser's storage
_SCRIPT = (
    f"<script>try {{ localStorage.getItem('{_MODE}') || localStorage.setItem('{_MODE}', "
    '\'"machine_learning"\') } catch {}</script>'
)


def create_app() -> Any:
    """MLflow's application; its first page sets the mode before anything is drawn."""
    from mlflow.server import app as pages
    from mlflow.server.fastapi_app import app

    page = pathlib.Path(str(pages.static_folder)) / 'index.html'
    if page.exists() and 'serve' in pages.view_functions:
        text = page.read_text(encoding='utf-8').replace('<head>', f'<head>{_SCRIPT}', 1)
        pages.view_functions['serve'] = lambda: text
    return app
