"""What a reader's hands do: keys on a slider, the mouse on a plot."""


def slider(view, name):
    return view.locator(f"[role=slider][aria-label='{name}']")


def press(handle, key, times=1):
    handle.focus()
    for _ in range(times):
        handle.press(key)


def drag(page, *way):
    """Hold the mouse at the first place, let it go at the last."""
    page.mouse.move(*way[0])
    page.mouse.down()
    for start, end in zip(way, way[1:], strict=False):
        for part in (0.3, 0.7, 1):
            page.mouse.move(*(a + part * (b - a) for a, b in zip(start, end, strict=True)))
    page.mouse.up()


def centre(locator):
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def place(plot, x, y):
    """Where a point of a plotly figure is on the page, in pixels."""
    script = """(plot, [x, y]) => { const at = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;
        return [at.x + xaxis._offset + xaxis.d2p(x), at.y + yaxis._offset + yaxis.d2p(y)]; }"""
    return plot.evaluate(script, [x, y])


def corner(plot, x, y):
    """A place within the panel of a plot, as shares of its width and height from the upper left."""
    script = """(plot, [x, y]) => { const at = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;
        return [at.x + xaxis._offset + x * xaxis._length, at.y + yaxis._offset + y * yaxis._length]; }"""
    return plot.evaluate(script, [x, y])


def tool(plot, title):
    """A button of the plot's own bar, which is there while the mouse is over the plot."""
    plot.hover()
    plot.locator(f".modebar-btn[data-title='{title}']").click()


def alone(plot, most=40):
    """Points that are drawn, each the only one within some pixels: [(trace, index, x, y in pixels of the page)]."""
    script = """(plot, most) => { const at = plot.getBoundingClientRect(), of = plot._fullLayout, all = [];
        plot._fullData.forEach((trace, t) => { if (trace.visible === true && trace.customdata) trace.x.forEach((x, i) => {
            if (x !== null && !Number.isNaN(x)) all.push([t, i, of.xaxis.d2p(x), of.yaxis.d2p(trace.y[i])]); }); });
        const near = (a, b) => Math.hypot(a[2] - b[2], a[3] - b[3]);
        const inside = p => p[2] > 10 && p[3] > 10 && p[2] < of.xaxis._length - 10 && p[3] < of.yaxis._length - 10;
        const apart = all.filter(a => inside(a)).map(a => [Math.min(...all.filter(b => b !== a).map(b => near(a, b))), a]);
        return apart.sort((a, b) => b[0] - a[0]).slice(0, most).map(([gap, [t, i, x, y]]) =>
            [t, i, at.x + of.xaxis._offset + x, at.y + of.yaxis._offset + y]); }"""
    return plot.evaluate(script, most)
