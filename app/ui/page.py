"""The page: a header and one tab per task, each built by a function of its own."""

from typing import Any

import gradio as gr

from app.access import Access
from app.engine import Engine
from app.ui.compare import build_compare
from app.ui.distil import build_distil_tab
from app.ui.results import build_results
from app.workshop import Workshop

HEADER = """
<header class="l2d-header">
  <h1>L2D</h1>
  <p>Where do a teacher and its students look? <span>Class activation maps of multi-label networks, on one scale.</span></p>
  <nav><a href="docs">API</a></nav>
</header>
"""

CSS = """
/* Gradio hides what overflows, and nothing within could stick to the window's top. */
.gradio-container { padding: 0 !important; overflow: clip !important; }
.gradio-container > .main { padding: 16px clamp(14px, 5vw - 6px, 28px) 32px !important; max-width: 2560px; margin: 0 auto !important; }
.gradio-container .tabitem { padding: 4px 0 0 !important; }
.gradio-container .html-container { padding: 0 !important; }
/* What holds nothing to be seen would still be one more gap. */
.gradio-container .block:has(> .html-container > :empty, > .html-container style:only-child) { display: none; }
/* A list's field has the edge of other fields. */
.gradio-container .container > .wrap:has(> .wrap-inner) { border-color: var(--input-border-color); }
/* Themes have one accent for both schemes. */
.dark { --color-accent: var(--primary-400); }
.l2d-header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 16px; }
.l2d-header h1 { margin: 0; font-size: 22px; font-weight: 700; letter-spacing: -0.01em; }
.l2d-header p { margin: 0; color: var(--body-text-color-subdued); }
.l2d-header nav { margin-left: auto; }
.l2d-header a { color: var(--body-text-color-subdued); text-decoration: underline; text-underline-offset: 3px; }
/* Where the keyboard is: Gradio marks boxes, sliders and lists not at all. */
.gradio-container :is(a, button, input, textarea, pre, [role=region]):focus-visible,
.gradio-container .wrap:has(> .wrap-inner):focus-within {
  outline: 2px solid var(--color-accent) !important; outline-offset: 2px;
}
.gradio-container .wrap-inner input:focus-visible { outline: 0 !important; }
.gradio-container :is([role=tab], pre):focus-visible { outline-offset: -2px; }
.gradio-container [type=range]:focus-visible { outline-offset: 6px; }
/* Gradio's knob is white on white. */
.gradio-container [type=range]::-webkit-slider-thumb { background: var(--color-accent) !important; }
.gradio-container [type=range]::-moz-range-thumb { background: var(--color-accent) !important; }
/* Within a media query Gradio puts the container before every selector itself. */
@media (forced-colors: active) {
  /* Such a theme takes fills away, by which one sees what is chosen: the line below the tab in front, ticks and knobs. */
  [role=tab][aria-selected=true]::after { forced-color-adjust: none; background: Highlight; }
  .wrap :is([type=radio], [type=checkbox], [type=range]) { forced-color-adjust: none; }
}
@keyframes l2d-busy { to { transform: translateX(440%); } }
@media (max-width: 640px) {
  .l2d-header { column-gap: 10px; }
  .l2d-header p { font-size: 13px; }
  .l2d-header p span { display: none; }
}
"""

# Fonts are fetched at once, not when the first text is there, which would move what stands beside it.
# The style is for the container itself, which Gradio puts before every selector of a media query in `CSS`: on paper it may not clip what
# goes on to the next page, nor is it dark.
HEAD = """
<link rel="preload" href="static/fonts/SourceSansPro/SourceSansPro-Regular.woff2" as="font" type="font/woff2" crossorigin>
<link rel="preload" href="static/fonts/SourceSansPro/SourceSansPro-Bold.woff2" as="font" type="font/woff2" crossorigin>
<style>
@media print {
  body .gradio-container { overflow: visible !important; }
  body .gradio-container > .main { padding-bottom: 0 !important; }
  .dark .gradio-container * { color: #000 !important; }
}
</style>
"""


def build_page(engine: Engine, workshop: Workshop, access: Access) -> gr.Blocks:
    """The whole page. Mount it with `look()`: since Gradio 6 theme and style belong to the mounting, not to the page."""
    with gr.Blocks(title="L2D", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(HEADER, apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("Compare", id="compare") as compare:
                build_compare(engine)
            with gr.Tab("Results", id="results") as results:
                build_results(engine)
            with gr.Tab("Distil", id="distil") as distil:
                build_distil_tab(workshop, access, distil, (compare, results))
    return page


def look() -> dict[str, Any]:
    """Arguments of `gr.mount_gradio_app` that belong to this page. Nothing in them is fetched from elsewhere."""
    theme = gr.themes.Base(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="stone",
        # Of the fonts that Gradio serves itself, only these weights hold all letters; its semi-bold files do not.
        font=[gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        body_background_fill_dark="*neutral_950",
        input_border_width="1px",
        # What is filled in is seen by its edge: 3 to 1 at least.
        input_border_color="*neutral_500",
        input_border_color_dark="*neutral_500",
        input_border_color_focus="*neutral_500",
        input_border_color_focus_dark="*neutral_500",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_500",
        # On Gradio's own, subdued text falls short of 4.5 to 1.
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_900",
        code_background_fill="*neutral_50",
        code_background_fill_dark="*neutral_900",
        # Gradio's own accent has a contrast of 2.5 to 1 with white: too little for what is to be seen and read.
        color_accent="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_border_color="*primary_700",
        button_primary_border_color_dark="*primary_700",
        # What cannot be undone.
        button_cancel_text_color="#b91c1c",
        button_cancel_text_color_dark="#fecaca",
        button_cancel_text_color_hover="#b91c1c",
        button_cancel_text_color_hover_dark="#fecaca",
    )
    return {"theme": theme, "css": CSS, "head": HEAD, "footer_links": [], "run_history": False, "ssr_mode": False}
