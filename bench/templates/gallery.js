// Loaded at the top of each page's body: the theme is set before anything is drawn.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem("xmalign-theme"); } catch { return null; } };
  const paint = theme => {
    document.body.dataset.jpThemeLight = String(theme !== "dark");
    document.body.dataset.jpThemeName = theme === "dark" ? "JupyterLab Dark" : "JupyterLab Light";
    const button = document.getElementById("theme");
    if (button) button.textContent = theme === "dark" ? "☀ light" : "☾ dark";
  };
  const wanted = () => kept() ?? (dark.matches ? "dark" : "light");
  paint(wanted());
  dark.addEventListener("change", () => paint(wanted()));
  addEventListener("beforeprint", () => paint("light"));
  addEventListener("afterprint", () => paint(wanted()));
  addEventListener("DOMContentLoaded", () => {
    paint(wanted());
    document.getElementById("theme").addEventListener("click", () => {
      const next = document.body.dataset.jpThemeLight === "true" ? "dark" : "light";
      try { localStorage.setItem("xmalign-theme", next); } catch { /* a browser that keeps nothing */ }
      paint(next);
    });
    if (innerWidth < 600)
      for (const plot of document.querySelectorAll("main .js-plotly-plot")) if (plot._fullLayout?.showlegend)
        Plotly.relayout(plot, {"margin.b": plot._fullLayout.margin.b + 60,
          legend: {orientation: "h", x: 0, xref: "container", y: 0, yref: "container", yanchor: "bottom"}});
    // Figures of the notebooks have their words already; those of the widgets' static twins get their title.
    for (const plot of document.querySelectorAll(".js-plotly-plot, [data-plot]")) {
      if (plot.getAttribute("aria-label")) continue;
      const name = () => {
        const title = plot.layout?.title?.text || "Plot"; if (!plot.data) return false;
        const words = [title.replace(/<[^>]*>/g, " "), ...new Set(plot.data.map(t => t.name).filter(Boolean))];
        plot.setAttribute("role", "img"); plot.setAttribute("aria-label", words.join(", "));
        return true;
      };
      for (let wait = 0; wait < 5000 && !name(); wait = 2 * wait + 200) setTimeout(name, wait);
    }
  });
})();
