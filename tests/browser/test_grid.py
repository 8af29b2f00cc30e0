"""What a cell of the grid shows, for answers made up for it."""

from importlib import resources

import pytest

from l2d.layers import format_probability

BROWSER = resources.files("app.ui") / "browser"
SCRIPTS = "\n".join((BROWSER / name).read_text(encoding="utf-8") for name in ("dom.js", "draw.js", "grid.js"))
SCENE = """
const model = (name, labels, score, map) => {
  const maps = map ? { cat: map } : {};
  return { name, title: name.toUpperCase(), labels, mAP: 50, scores: new Map([["cat", score]]), maps, timings: null };
};
const scene = { photo: { width: 100, height: 100, preview: "" }, labels: ["cat"], models: [
  model("sure", ["cat"], 0.9, [[0, 2], [4, 1]]), model("unsure", ["cat"], 0.1, [[0, 2], [4, 1]]),
  model("blind", ["cat"], 0.6, [[0, 0], [0, 0]]), model("stranger", ["dog"], undefined, null), model("waiting", ["cat"], 0.5, null),
] };
const colours = parseColours("ffffff".repeat(256));
const view = { kind: "layercam", minus: "", scale: "row", smooth: false, opacity: 0.8, threshold: 0.5, even: true };
Object.assign(view, { colours, diverging: colours });
const root = document.body.appendChild(document.createElement("div"));
const grid = createGrid(root, { remove() {} });
grid.build(scene);
"""
READ = """[...root.querySelectorAll(".row figure:not(.bare-cell)")].map((cell) => {
  const canvas = cell.querySelector("canvas");
  const alpha = canvas.width ? canvas.getContext("2d").getImageData(0, 0, 1, 1).data[3] / 255 : 0;
  const text = cell.querySelector("figcaption").innerText, note = cell.querySelector(".note").textContent;
  const name = cell.querySelector(".name").textContent, spoken = cell.getAttribute("aria-label");
  return { alpha, note, text, name, spoken, sure: cell.classList.contains("sure") };
})"""


@pytest.fixture
def draw(context):
    """Draw the scene above in a view that differs from the plain one, and read its five cells."""
    page = context.new_page()
    yield lambda changes="{}": page.evaluate(f"(() => {{ {SCRIPTS} {SCENE} grid.draw({{ ...view, ...{changes} }}); return {READ}; }})()")
    page.close()


def test_maps_of_improbable_labels_fade_and_predictions_are_bold(draw):
    sure, unsure, *_ = draw()
    assert sure["alpha"] == pytest.approx(0.8, abs=0.01)
    assert 0.2 < unsure["alpha"] < 0.4
    assert (sure["sure"], unsure["sure"]) == (True, False)
    assert ("0.90" in sure["text"], "max 4.0" in sure["text"]) == (True, True)
    # From a threshold below its probability on the same map is as strong as the other one.
    assert draw("{ threshold: 0.05 }")[1]["alpha"] == pytest.approx(0.8, abs=0.01)


def test_what_has_no_map_says_why_instead_of_being_painted(draw):
    *_, blind, stranger, waiting = draw()
    assert [cell["alpha"] for cell in (blind, stranger, waiting)] == [0, 0, 0]
    assert [cell["note"] for cell in (blind, stranger, waiting)] == ["no positive evidence", "not a label of this model", "…"]


def test_a_difference_to_a_model_that_does_not_know_the_label_says_so(draw):
    cells = draw("{ minus: 'stranger' }")
    assert [cell["note"] for cell in cells[:2]] == ["not a label of STRANGER"] * 2


def test_differences_are_signed_and_the_reference_keeps_its_evidence(draw):
    sure, _, blind, *_ = draw("{ minus: 'sure' }")
    assert "max 4.0" in sure["text"]
    assert "±4.0" in blind["text"]


def test_what_is_subtracted_is_named_with_every_model_but_itself(draw):
    sure, unsure, *_ = draw("{ minus: 'sure' }")
    assert (sure["name"], unsure["name"]) == ("SURE", "UNSURE −\N{NO-BREAK SPACE}SURE")
    assert unsure["spoken"].startswith("UNSURE −\N{NO-BREAK SPACE}SURE, cat: probability 0.10, ")
    assert draw()[1]["name"] == "UNSURE"


def test_rows_far_from_the_window_are_painted_when_they_come_near(context):
    page = context.new_page()
    page.set_viewport_size({"width": 800, "height": 600})
    page.evaluate(
        f"""() => {{ {SCRIPTS} {SCENE}
          grid.build({{ ...scene, labels: Array(40).fill("cat") }});
          for (const row of root.querySelectorAll(".row")) row.style.height = "200px";
          grid.draw(view);
        }}"""
    )
    count = "() => [...document.querySelectorAll('.cell:nth-child(2) canvas')].filter((canvas) => canvas.width === 2).length"
    first = page.evaluate(count)
    assert 3 < first < 10
    page.locator(".row").last.scroll_into_view_if_needed()
    page.wait_for_function(f"({count})() > {first}")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(count) == 40
    page.close()


def test_many_columns_stand_in_several_lines_with_their_names(context):
    page = context.new_page()
    page.set_viewport_size({"width": 500, "height": 600})
    page.evaluate(f"() => {{ {SCRIPTS} {SCENE} }}")
    crowded = "document.querySelector('div').classList.contains('crowded')"
    assert page.evaluate(crowded)
    page.set_viewport_size({"width": 700, "height": 600})
    page.wait_for_function(f"!{crowded}")
    page.close()


def test_a_finger_that_is_lifted_leaves_the_values_of_its_place(context):
    page = context.new_page()
    touched = page.evaluate(
        f"""() => {{ {SCRIPTS} {SCENE}
          grid.draw(view);
          const row = root.querySelector(".row"), frame = row.querySelectorAll(".frame")[1], seen = [];
          const {{ left, top, width, height }} = frame.getBoundingClientRect();
          const at = {{ bubbles: true, pointerType: "touch", clientX: left + width / 4, clientY: top + 0.75 * height }};
          for (const type of ["pointerdown", "pointerup", "pointerleave", "pointercancel"]) {{
            (type === "pointerleave" ? row.querySelector(".cells") : frame).dispatchEvent(new PointerEvent(type, at));
            seen.push([row.classList.contains("crossed"), row.querySelector(".value").textContent]);
          }}
          return seen;
        }}"""
    )
    assert [crossed for crossed, _ in touched] == [True, True, True, False]
    assert touched[2][1] == touched[0][1] != touched[3][1]
    page.close()


def test_probabilities_read_as_in_a_figure(context):
    page = context.new_page()
    probabilities = [0, 1e-9, 0.0049, 0.006, 0.5, 0.9949, 0.997, 1]
    texts = page.evaluate(f"((scores) => {{ {SCRIPTS} return scores.map(formatProbability); }})", probabilities)
    assert texts == [format_probability(probability) for probability in probabilities]
    page.close()
