"""What notebook 11 draws with: plans of transport as panels of words."""

import numpy as np
import pytest

from xmalign_lab import heatmaps


def test_a_plan_is_drawn_as_shares_of_each_words_mass():
    plans = {"its translation": np.array([[0.4, 0.1], [0.2, 0.3]]), "a <wrong> one": np.array([[0.1, 0.1, 0.3], [0.3, 0.1, 0.1]])}
    others = [["mbwa", "mkubwa"], ["a", "b", "<c>"]]
    figure = heatmaps.transport(plans, ["dog", "big"], others, "Word against word")
    np.testing.assert_allclose(figure.data[0].z, [[0.8, 0.2], [0.4, 0.6]], rtol=1e-6)
    assert all(np.allclose(panel.z.sum(1), 1) for panel in figure.data)
    frames = [(shape.xref, shape.x0 + 0.5, shape.y0 + 0.5) for shape in figure.layout.shapes]
    assert frames == [("x", 0, 0), ("x", 1, 1), ("x2", 2, 0), ("x2", 0, 1)]
    assert figure.layout.xaxis2.ticktext == ("a", "b", "&lt;c&gt;") and figure.layout.yaxis.ticktext == ("dog", "big")
    assert [note.text for note in figure.layout.annotations] == ["its translation", "a &lt;wrong&gt; one"]
    with pytest.raises(ValueError, match=r"its translation: a plan \(2, 2\) of 3 words against 2"):
        heatmaps.transport(plans, ["dog", "big", "red"], others, "Word against word")
