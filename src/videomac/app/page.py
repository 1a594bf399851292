"""The page: which component shows what, and which function answers. Everything that is done is done elsewhere."""

from __future__ import annotations

import functools
import html
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from videomac.app import looking, views
from videomac.app.fence import Fence
from videomac.app.session import Session, Sessions
from videomac.errors import UserError

HERE = Path(__file__).parent
ACCENT = gr.themes.Color(
    *("#eef5fb", "#d6e7f5", "#adcfeb", "#7db1dc", "#4a90c8"), *("#1b6ca8", "#175c90", "#134c77", "#0f3c5e", "#0b2c45"),
    "#071c2c",
)  # fmt: skip
EVERY = 0.5
"""Seconds between two pictures while labels are propagated."""
FORMATS = [("COCO", "coco"), ("DeepLabCut", "dlc"), ("SLEAP", "sleap")]
MIDDLEWARE = [Middleware(Fence)]
FETCH = "() => document.querySelector('#vm-file a, a#vm-file, #vm-file').click()"
HEADER = "<h1>videomac</h1><p>Label one frame, get the video.</p>"


def theme() -> Any:
    """One accent colour, and fonts that are on every machine."""
    fonts = ["system-ui", "Segoe UI", "Roboto", "sans-serif"]
    return gr.themes.Base(
        primary_hue=ACCENT, secondary_hue=ACCENT, neutral_hue="gray", font=fonts, font_mono=["monospace"],
        radius_size="sm", text_size="md",
    ).set(
        body_text_color_subdued="*neutral_500",
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
    )  # fmt: skip


def drawn_by_script(name: str, value: Any = None, elem_id: str = "") -> Any:
    """A component of our own: its elements and the script that fills them lie beside this file."""
    template, script = (HERE / f"{name}.{suffix}" for suffix in ("html", "js"))
    return gr.HTML(
        value, html_template=template.read_text("utf-8"), js_on_load=script.read_text("utf-8"),
        apply_default_css=False, elem_id=f"vm-{elem_id or name}",
    )  # fmt: skip


def in_words(answer: Callable[..., Any]) -> Callable[..., Any]:
    """What a user can cure is said in the page, which stays as it was."""

    @functools.wraps(answer)
    def wrapper(*arguments: Any) -> Any:
        try:
            return answer(*arguments)
        except UserError as error:
            warn(str(error))
            return gr.skip()

    return wrapper


def warn(sentence: str) -> None:
    """Say something in the page, which shows such messages as HTML: names of files are only text."""
    gr.Warning(html.escape(f"{sentence}."), title="That did not work")


class Page:
    """Builds the page for a server with these sessions."""

    def __init__(self, sessions: Sessions, downloads: Path) -> None:
        self.sessions, self.downloads = sessions, downloads
        self.backbones = sessions.backbones
        names = self.backbones.choices
        with gr.Blocks(title="videomac", analytics_enabled=False, delete_cache=(600, 3600)) as self.blocks:
            with gr.Row(elem_id="vm-top"):
                gr.HTML(HEADER, elem_id="vm-title", apply_default_css=False)
                self.upload = gr.UploadButton("Open a clip", file_types=["video"], size="md", min_width=140, scale=0)
                self.backbone = gr.Dropdown(
                    names, value=names[0][1], label="Backbone", allow_custom_value=True, min_width=180, scale=2
                )
                stage = self.backbones.stage_for(names[0][1])
                self.stage = gr.Dropdown([1, 2, 3, 4], value=stage, label="Stage", min_width=80, scale=0)
            with gr.Tabs(selected="label") as self.tabs:
                with gr.Tab("Label", id="label") as label_tab:
                    self._label()
                with gr.Tab("Reconstruct", id="reconstruct") as reconstruct_tab:
                    self._reconstruct()
                with gr.Tab("Features", id="features") as features_tab:
                    self._features()
            self._wire([label_tab, reconstruct_tab, features_tab])

    def session(self, request: gr.Request) -> Session:
        """Whose request it is."""
        return self.sessions.of(str(request.session_hash))

    # What there is ----------------------------------------------------------------------------------------------------

    def _label(self) -> None:
        with gr.Row():
            with gr.Column(scale=5, min_width=320, elem_id="vm-main"):
                self.picture = drawn_by_script("stage", {})
                self.timeline = drawn_by_script("timeline", {})
            with gr.Column(scale=2, min_width=260, elem_id="vm-side"):
                self.labels = drawn_by_script("labels", {})
                with gr.Row():
                    self.go = gr.Button("Propagate", variant="primary", elem_id="vm-go", min_width=100)
                    self.stop = gr.Button("Stop", elem_id="vm-stop", min_width=60, scale=0)
                self.formats = gr.CheckboxGroup(FORMATS, label="Download also as", elem_id="vm-formats")
                self.download = gr.Button("Download", elem_id="vm-download")
                self.file = gr.DownloadButton("labels.zip", visible="hidden", elem_id="vm-file")
                gr.HTML((HERE / "help.html").read_text("utf-8"), elem_id="vm-help", apply_default_css=False)

    def _reconstruct(self) -> None:
        self.reconstruction = drawn_by_script("gallery", views.gallery([]), "reconstruction")
        with gr.Row():
            self.frame = gr.Slider(
                0, 1, value=0, step=1, label="Frame", buttons=[], min_width=200, elem_id="vm-reconstruct-frame"
            )  # fmt: skip
            self.ratio = gr.Slider(0.05, 0.95, value=0.75, step=0.05, label="Mask ratio", buttons=[], min_width=200)
            self.seed = gr.State(0)
            self.new_mask = gr.Button("New mask", elem_id="vm-new-mask", min_width=120, scale=0)

    def _features(self) -> None:
        with gr.Row():
            self.feature_frame = gr.Slider(
                0, 1, value=0, step=1, label="Frame", buttons=[], min_width=200, elem_id="vm-feature-frame"
            )  # fmt: skip
            choices = self.backbones.choices
            other = next((name for _, name in choices[1:]), choices[0][1])
            self.other = gr.Dropdown(choices, value=other, label="Compare with", allow_custom_value=True, min_width=200)
        self.colours = drawn_by_script("gallery", views.gallery([]), "colours")
        self.similar = drawn_by_script("gallery", views.gallery([]), "similar")

    # What answers -----------------------------------------------------------------------------------------------------

    def _wire(self, tabs: list[Any]) -> None:
        quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 8}
        drawing = [self.picture, self.timeline, self.labels]
        latest = quick | {"trigger_mode": "always_last"}
        every = quick | {"trigger_mode": "multiple"}
        self.blocks.load(self.begin, None, [*drawing, self.frame, self.feature_frame], **quick)
        self.blocks.unload(self.end)
        opened = [*drawing, self.frame, self.feature_frame, self.tabs]
        self.upload.upload(in_words(self.open), self.upload, opened, **quick)
        self.timeline.scrub(in_words(self.scrub), None, self.picture, **latest)
        self.picture.mark(in_words(self.mark), None, drawing, **every)
        self.picture.stroke(in_words(self.stroke), None, drawing, **every)
        self.picture.undo_step(in_words(self.undo), None, drawing, **every)
        self.picture.forget(in_words(self.forget), None, drawing, **every)
        for name in ("choose", "rename", "remove", "add"):
            getattr(self.labels, f"{name}_label")(in_words(getattr(self, name)), None, drawing, **every)
        self.go.click(
            self.propagate, [self.backbone, self.stage], drawing,
            **quick | {"concurrency_limit": 4, "concurrency_id": "propagate"},
        )  # fmt: skip
        self.stop.click(self.halt, None, None, **quick)
        packing = self.download.click(
            in_words(self.pack), self.formats, self.file, **quick | {"show_progress": "minimal"}
        )  # fmt: skip
        packing.success(None, None, None, js=FETCH)

        reconstructing = ([self.backbone, self.frame, self.ratio, self.seed], self.reconstruction)
        reconstruct = in_words(self.reconstruct)
        tabs[1].select(reconstruct, *reconstructing, **latest)
        for change in (self.frame.input, self.ratio.input):
            change(reconstruct, *reconstructing, **latest)
        self.new_mask.click(self.reseed, None, self.seed, **quick).then(reconstruct, *reconstructing, **latest)

        inputs = [self.backbone, self.other, self.stage, self.feature_frame]
        show = in_words(self.show_features)
        tabs[2].select(show, inputs, self.colours, **latest)
        for change in (self.feature_frame.input, self.other.input):
            change(show, inputs, self.colours, **latest)
        for gallery in (self.colours, self.similar):
            gallery.pick(in_words(self.pick), inputs, self.similar, **latest)
        refresh = in_words(self.refresh)
        refreshed = (
            [*reconstructing[0], self.other, self.stage, self.feature_frame], [self.reconstruction, self.colours]
        )  # fmt: skip
        self.backbone.input(self.stage_of, self.backbone, self.stage, **quick).then(refresh, *refreshed, **latest)
        self.stage.input(refresh, *refreshed, **latest)
        for tab, name in zip(tabs, ("label", "reconstruct", "features"), strict=True):
            tab.select(self.seeing(name), None, None, **quick)

    def _drawing(self, session: Session, frame: int, *, go_to: int | None = None) -> tuple[Any, ...]:
        return views.stage(session, frame), views.timeline(session, go_to=go_to), views.labels(session)

    def begin(self, request: gr.Request) -> tuple[Any, ...]:
        """A tab has been opened."""
        return self._opened(self.session(request))

    def _opened(self, session: Session) -> tuple[Any, ...]:
        last = 1 if session.clip is None else max(1, len(session.clip) - 1)
        slider = gr.Slider(maximum=last, value=0)
        return (*self._drawing(session, 0, go_to=0), slider, slider)

    def end(self, request: gr.Request) -> None:
        """A tab has been closed."""
        self.sessions.close(str(request.session_hash))

    def open(self, path: str, request: gr.Request) -> tuple[Any, ...]:
        """A file has been uploaded."""
        session = self.session(request)
        session.open(Path(path), Path(path).name)
        return (*self._opened(session), gr.Tabs(selected="label"))

    def scrub(self, event: gr.EventData, request: gr.Request) -> Any:
        """Show another frame."""
        session = self.session(request)
        return gr.skip() if session.is_busy else views.stage(session, int(event.frame))

    def mark(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """A click with the tool Point."""
        session = self.session(request)
        session.click(int(event.frame), float(event.x), float(event.y))
        return self._drawing(session, int(event.frame))

    def stroke(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """A stroke of the brush or the eraser."""
        session = self.session(request)
        session.stroke(int(event.frame), event.points, float(event.radius), erase=bool(event.erase))
        return self._drawing(session, int(event.frame))

    def undo(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Take back the latest step."""
        session = self.session(request)
        session.undo()
        return self._drawing(session, int(event.frame or 0))

    def forget(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Take back what is labelled in this frame."""
        session = self.session(request)
        session.forget(int(event.frame or 0))
        return self._drawing(session, int(event.frame or 0))

    def choose(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Draw another label from now on."""
        session = self.session(request)
        session.choose(int(event.number))
        return self._drawing(session, session.seen)

    def rename(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """A label has been given another name."""
        session = self.session(request)
        try:
            session.rename(int(event.number), str(event.name))
        except UserError as error:
            warn(str(error))
        return self._drawing(session, session.seen)

    def remove(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Drop a label."""
        session = self.session(request)
        session.remove(int(event.number))
        return self._drawing(session, session.seen)

    def add(self, request: gr.Request) -> tuple[Any, ...]:
        """One more label."""
        session = self.session(request)
        session.add()
        return self._drawing(session, session.seen)

    def propagate(self, backbone: str, stage: int, request: gr.Request) -> Iterator[Any]:
        """Label the rest of the video, and show how far it is."""
        session = self.session(request)
        try:
            run = session.propagate(str(backbone), int(stage))
        except UserError as error:
            warn(str(error))
            yield gr.skip()
            return
        going = True
        while going:
            going = run.wait(EVERY)
            if session.propagation is not run:
                return  # another clip was opened, or the tab was closed
            frame = session.seen if run.step is None else run.step.frame
            yield self._drawing(session, frame, go_to=frame)
        if run.problem:
            warn(run.problem)

    def halt(self, request: gr.Request) -> None:
        """Stop propagating."""
        session = self.session(request)
        if session.propagation is not None:
            session.propagation.stop()

    def pack(self, formats: list[str], request: gr.Request) -> str:
        """Everything in one file, under a name that nobody can guess; gradio serves it from there."""
        folder = self.downloads / secrets.token_urlsafe(24)
        return str(self.session(request).download(formats, folder))

    def stage_of(self, backbone: str) -> int:
        """The stage that suits a backbone."""
        return self.backbones.stage_for(str(backbone))

    def reconstruct(self, backbone: str, frame: int, ratio: float, seed: int, request: gr.Request) -> Any:
        """Frame, masked, reconstruction."""
        session = self.session(request)
        try:
            return views.gallery(looking.reconstruct(session, str(backbone), int(frame), float(ratio), int(seed)))
        except UserError as error:
            return views.gallery([], f"{error}.")

    @staticmethod
    def reseed() -> int:
        """Another mask."""
        return secrets.randbelow(2**31)

    def show_features(self, backbone: str, other: str, stage: int, frame: int, request: gr.Request) -> Any:
        """Features as colours."""
        names = list(dict.fromkeys([str(backbone), str(other)]))
        return views.gallery(*looking.features(self.session(request), names, int(stage), int(frame)))

    def pick(self, backbone: str, other: str, stage: int, frame: int, event: gr.EventData, request: gr.Request) -> Any:
        """What is similar to the point that was clicked."""
        names, place = list(dict.fromkeys([str(backbone), str(other)])), (float(event.u), float(event.v))
        found = looking.similar(self.session(request), names, int(stage), int(frame), place)
        return views.gallery(found, "Orange: similar to the point in the ring.", columns=looking.OTHERS + 1)

    def refresh(
        self, backbone: str, frame: int, ratio: float, seed: int, other: str, stage: int, feature_frame: int,
        request: gr.Request,
    ) -> Any:  # fmt: skip
        """Another backbone or stage has been chosen while a tab shows one."""
        tab = self.session(request).tab
        if tab == "reconstruct":
            return self.reconstruct(backbone, frame, ratio, seed, request), gr.skip()
        if tab == "features":
            return gr.skip(), self.show_features(backbone, other, stage, feature_frame, request)
        return gr.skip()

    def seeing(self, tab: str) -> Callable[[gr.Request], None]:
        """Remembers which part of the page is in front."""

        def see(request: gr.Request) -> None:
            self.session(request).tab = tab

        return see
