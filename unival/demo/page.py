"""The page: a tab per modality, its medium on the left, what can be asked about it on the right."""

from __future__ import annotations

import html
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unival.core.deadline import work_until
from unival.core.modalities import MODALITIES
from unival.demo.actions import Action, possible
from unival.demo.bounds import BoundedBodies
from unival.demo.examples import examples
from unival.errors import OverdueError, UnivalError
from unival.media import MediaError
from unival.serve.limits import ServiceLimits

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Mount

if TYPE_CHECKING:
    from unival.predict.predictor import Predictor

_log = logging.getLogger(__name__)
# fonts of the machine: the page loads nothing from elsewhere
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])


def build_page(predictor: Predictor, limits: ServiceLimits, world: Path | None = None) -> gr.Blocks:
    """Return the page of a predictor, with examples of a sample world (unival.demo.examples)."""
    info = predictor.info
    with gr.Blocks(analytics_enabled=False, title="UnIVAL", delete_cache=(60, 600)) as page:
        gr.Markdown(
            f"# UnIVAL\n{Path(predictor.name).name}: {info['parameters'] / 1e6:.1f} M parameters, "
            f"{info['device']}. Files up to {limits.upload_bytes / 2**20:.0f} MB, videos up to "
            f"{limits.video_frames} frames, sounds up to {limits.audio_seconds} s."
        )
        for modality, actions in possible(predictor.modalities).items():
            with gr.Tab(MODALITIES[modality].title, id=modality), gr.Row():
                with gr.Column():
                    medium = _medium(modality)
                with gr.Column(), gr.Tabs():
                    for action in actions:
                        with gr.Tab(action.offer.title):
                            _add(predictor, limits, medium, modality, action, world)
    return page.queue(max_size=limits.workers + limits.queue, api_open=False)


def as_application(
    page: gr.Blocks, limits: ServiceLimits, uploads: Path
) -> tuple[BoundedBodies, Callable[[], None]]:
    """Return the ASGI application of a page that keeps its files in ``uploads``, and what ends its open streams."""
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        theme=THEME,
        footer_links=[],
        run_history=False,
        show_error=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        max_file_size=limits.upload_bytes,
    )
    # gradio looks at where the files of a request lie on pages alone that were launched, which a mounted one never is:
    # without this a forged request reads any file of the machine
    page.has_launched = True
    mounted: Any = next(route.app for route in app.routes if isinstance(route, Mount))
    return BoundedBodies(app, limits, uploads), mounted.stop_event.set


def _medium(modality: str) -> Any:
    label, name = MODALITIES[modality].title, f"{modality}-upload"
    if modality == "image":
        made: Any = gr.Image(label=label, elem_id=name, type="filepath", sources=["upload", "clipboard"])
    elif modality == "video":
        made = gr.Video(label=label, elem_id=name, sources=["upload"])
    else:
        made = gr.Audio(label=label, elem_id=name, type="filepath", sources=["upload"], editable=False)
    cache = made.async_move_resource_to_block_cache

    async def uploaded_only(source: str | Path | None) -> str | None:
        if source is not None and str(source).lower().startswith(("http:", "https:")):
            raise gr.Error("addresses are not read: upload a file", print_exception=False)
        return await cache(source)

    # An instance, not a subclass: gradio writes a stub file beside the source of every subclass.
    made.async_move_resource_to_block_cache = uploaded_only
    # The file as it is: the model's own readers decode it and say what is wrong with it.
    made.preprocess = lambda payload: payload and payload.path
    return made


def _add(
    predictor: Predictor,
    limits: ServiceLimits,
    medium: Any,
    modality: str,
    action: Action,
    world: Path | None,
) -> None:
    name = f"{modality}-{action.name}"
    asked = []
    if action.offer.label:
        asked = [gr.Textbox(label=action.offer.label, elem_id=f"{name}-text", max_length=limits.text_length)]
    button = gr.Button(action.offer.title, variant="primary", elem_id=f"{name}-go")
    inputs = [medium, *asked]
    outputs: list[Any]
    if action.offer.shows == "box":
        outputs = [
            gr.Image(label="Found", elem_id=f"{name}-picture", interactive=False, buttons=[]),
            gr.Textbox(label="Box (x0, y0, x1, y1) in pixels", elem_id=f"{name}-answer", interactive=False),
        ]
    elif action.offer.shows == "shares":
        outputs = [gr.Label(label="Verdict", elem_id=f"{name}-answer")]
    else:
        outputs = [gr.Textbox(label="Answer", elem_id=f"{name}-answer", interactive=False)]
    gr.on(
        [button.click, *(text.submit for text in asked)],
        _answering(predictor, limits, modality, action),
        inputs,
        outputs,
        concurrency_limit=limits.workers,
        concurrency_id="model",
        api_visibility="private",
    )
    if world is not None:
        gr.Examples(examples(world, action, modality), inputs, api_visibility="private", label="Examples")


def _answering(
    predictor: Predictor, limits: ServiceLimits, modality: str, action: Action
) -> Callable[..., Any]:
    """Return the function behind a button; whatever goes wrong becomes a message on the page."""

    def answer(path: str | None, text: str | None = None) -> Any:
        if not path:
            raise _shown(f"Upload the {MODALITIES[modality].title.lower()} first.")
        if len(text or "") > limits.text_length:
            raise _shown(f"The text has {len(text or '')} characters, the limit is {limits.text_length}.")
        try:
            # content, not a path: a play list must not lead the readers to other files
            with work_until(time.monotonic() + limits.answer_seconds):
                result = action.ask(predictor, Path(path).read_bytes(), modality, text)
        except MediaError as error:
            raise _shown(f"{Path(path).name}: {error.reason}") from None
        except OverdueError:
            raise _shown(f"This takes more than {limits.answer_seconds} seconds, the limit.") from None
        except UnivalError as error:
            raise _shown(str(error)) from None
        except Exception:
            _log.exception("%s failed on %s", action.name, path)
            raise _shown("This failed on the server; its log says why.") from None
        if action.offer.shows == "box":
            if result.box is None:
                raise _shown("The model's output for this text is no box.")
            return result.draw(), str(result)
        return result.distribution if action.offer.shows == "shares" else result.text

    return answer


def _shown(message: str) -> gr.Error:
    return gr.Error(html.escape(message), print_exception=False)
