"use strict";
// Draws the page's curves anew with plotly.js, to be hovered, zoomed and filtered; without it the pictures stay.
(async () => {
  const root = document.documentElement, all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const unpacked = async id => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), letter => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const made = (tag, options = {}, children = []) => {
    const element = Object.assign(document.createElement(tag), options);
    element.append(...children);
    return element;
  };
  const data = JSON.parse(await unpacked("data"));
  document.head.append(made("script", { textContent: await unpacked("library") }));
  root.classList.add("live");

  // ---- light and dark
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => root.style.colorScheme ? root.style.colorScheme === "dark" : system.matches;
  const seen = colour => {  // dark lines are lightened on a dark page, and grey ones darkened
    if (!isDark()) return colour;
    const [red, green, blue] = [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16));
    if (red === green && green === blue) return `rgb(${[red, red, red].map(shade => 235 - shade)})`;
    return `rgb(${[red, green, blue].map(shade => Math.round(shade + 0.3 * (255 - shade)))})`;
  };

  // ---- one panel as plotly takes it
  const safe = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const title = text => safe(text).replaceAll("\n", "<br>");
  const name = (axis, otherwise) => safe(axis.title.split("\n")[0].replace(" (log scale)", "") || otherwise);
  const axisOf = (axis, grid) => ({
    title: { text: title(axis.title), font: { size: axis.title.includes("\n") ? 10 : 11 }, standoff: 6 }, type: axis.log ? "log" : "linear",
    range: axis.range, gridcolor: grid, zeroline: false, automargin: true, exponentformat: "none", ticks: "outside",
    ticklen: 3, tickcolor: grid, ...(axis.ticks && { tickvals: axis.ticks, ticktext: axis.labels.map(safe) }),
  });
  const lineOf = (line, panel) => ({
    type: "scatter", x: line.x, y: line.y, customdata: line.at, opacity: line.opacity, cliponaxis: line.x.length > 1,
    mode: [line.dash && "lines", line.marker && "markers"].filter(Boolean).join("+") || "none",
    line: { color: seen(line.colour), width: line.width, dash: line.dash || "solid" },
    marker: { color: seen(line.colour), symbol: line.marker || "circle", size: line.size },
    hoverlabel: { bordercolor: seen(line.colour) }, ...(line.method ? { hovertemplate:
      `<b>${safe(line.method)}</b>${line.about && "<br>" + title(line.about)}<br>${name(panel.x, "edits applied")}: %{customdata}` +
      `<br>${name(panel.y, "value")}: <b>%{y:.4~g}</b><extra></extra>` } : { hoverinfo: "skip" }),
  });
  const wrapped = text => (text.match(/\S{27,}|.{1,26}(?=\s|$)/g) ?? []).map(line => safe(line.trim()));  // for a narrow column
  const bandOf = band => ({ type: "scatter", x: band.x, y: band.y, mode: "lines", fill: "toself", hoverinfo: "skip",
    line: { width: 0, color: seen(band.colour) }, fillcolor: seen(band.colour), opacity: 0.18 });
  const mapOf = (map, hidden) => {
    const rows = map.rows.map((_, i) => i).filter(i => !hidden.has(map.rows[i])).reverse();
    return { type: "heatmap", hoverongaps: false, x: map.columns.map(title), y: rows.map(i => wrapped(map.rows[i]).join("<br>")), z: rows.map(i => map.values[i]),
      text: rows.map(i => map.texts[i].map(lines => safe(lines.join("\n")).replaceAll("\n", "<br>"))), texttemplate: "%{text}",
      zmin: map.low, zmax: map.high, colorscale: "Cividis", xgap: 1, ygap: 1, showscale: false,
      hovertemplate: "<b>%{y}</b><br>%{x}<br>%{text}<extra></extra>" };
  };
  const drawing = (panel, hidden, style, last) => {
    const shown = item => !hidden.has(item.method), grid = style.borderTopColor;
    const traces = panel.map ? [mapOf(panel.map, hidden)]
      : [...panel.bands.filter(shown).map(bandOf), ...panel.lines.filter(shown).map(line => lineOf(line, panel))];
    const shapes = panel.levels.map(level => ({ type: "line", layer: "between",
      line: { color: style.color, width: 1.3, dash: level.dash },
      ...("y" in level ? { xref: "paper", x0: 0, x1: 1, y0: level.y, y1: level.y } : { yref: "paper", y0: 0, y1: 1, x0: level.x, x1: level.x }) }));
    const marks = panel.collapses.filter(shown).map(at => ({ x: at.x, y: 0.03, yref: "paper", text: "✖", showarrow: false,
      font: { size: 15, color: seen(at.colour) }, hovertext: `<b>${safe(at.method)}</b><br>${title(at.about)}` }));
    const texts = panel.texts.filter(shown).map(text => ({ x: text.x, y: text.y, text: safe(text.text), showarrow: false,
      font: { size: 11, color: seen(text.colour) }, xshift: text.shift[0], yshift: 1.6 * text.shift[1] }));
    const gaps = panel.map ? traces[0].z.flatMap((row, i) => row.flatMap((value, j) => value === null
      ? [{ x: traces[0].x[j], y: traces[0].y[i], text: traces[0].text[i][j], showarrow: false }] : [])) : [];
    const axes = { xaxis: axisOf(panel.x, grid), yaxis: axisOf(panel.y, grid) };
    if (panel.map) for (const axis of Object.values(axes)) Object.assign(axis, { range: null, tickvals: null, ticktext: null, type: "category", ticks: "", fixedrange: true, showgrid: false, tickangle: 0 });
    axes.xaxis.showticklabels = !panel.map || last;
    return [traces, { ...axes, shapes, annotations: [...marks, ...texts, ...gaps], showlegend: false, hovermode: "closest",
      font: { family: getComputedStyle(document.body).fontFamily, color: style.color, size: 11 }, modebar: { bgcolor: "rgba(0,0,0,0)", color: "rgba(128,128,128,0.8)", activecolor: style.color },
      hoverlabel: { align: "left", bgcolor: style.backgroundColor, font: { size: 11, color: style.color } },
      margin: { l: 44, r: 12, t: 10, b: panel.x.title ? 38 : 24 }, paper_bgcolor: "rgba(0,0,0,0)", dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      plot_bgcolor: panel.grey ? "rgba(128,128,128,0.18)" : "rgba(0,0,0,0)" }];
  };
  const config = { responsive: true, doubleClick: "reset", displaylogo: false, modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d"]] };

  // ---- a method's line beside its name
  const DASHES = { solid: "none", dash: "6 3", dashdot: "6 2 2 2", dot: "2 2" };
  const MARKS = { circle: "●", square: "■", "triangle-up": "▲", diamond: "◆", "triangle-down": "▼", cross: "✚", x: "✖", star: "★" };
  const drawn = ({ dash, marker }) => `<svg viewBox="0 0 32 12"><path d="M0 6H32" stroke-dasharray="${DASHES[dash]}"/><text x="16" y="6">${MARKS[marker]}</text></svg>`;

  // ---- what was said, to be searched and filtered
  const browse = (place, { texts, rows }, hidden) => {
    const search = made("input", { type: "search", placeholder: "Search questions and answers", ariaLabel: "Search questions and answers" });
    const found = made("p", { className: "found" }), list = made("div"), more = made("button", { textContent: "Show more" });
    let most = 20;
    const select = (column, all) => {
      const values = [...new Set(rows.map(row => row[column]))].map(value => texts[value]);
      const options = [made("option", { value: "", textContent: all }), ...values.map(value => made("option", { value, textContent: value }))];
      return Object.assign(made("select", { ariaLabel: all }, options), { column });
    };
    const selects = [select("ability", "All tasks"), select("run", "All runs"), select("change", "All changes")];
    if (texts.includes("right → wrong")) selects[2].value = "right → wrong";
    const words = row => row.words ??= [row.question, row.wanted, ...row.said.map(([, text]) => text)].map(text => texts[text]).join("\n").toLowerCase();
    const example = row => made("div", { className: "example" }, [
      made("h4", { textContent: texts[row.ability] }, [made("span", { textContent: `row ${texts[row.row]} · ${texts[row.run]} · ${texts[row.change]}` })]),
      made("p", { textContent: texts[row.question] || "(the question may not be copied)" }),
      made("dl", {}, [["wanted", row.wanted], ...row.said].flatMap(([n, text]) => [
        made("dt", { textContent: n === "wanted" ? n : n === 0 ? "before" : n === 1 ? "1 edit" : `${n} edits` }),
        made("dd", { textContent: texts[text], className: { "✓": "right", "✗": "wrong" }[texts[text][0]] ?? "" })])),
    ]);
    const show = () => {
      const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const shown = rows.filter(row => !hidden.has(texts[row.method]) && selects.every(({ value, column }) => !value || texts[row[column]] === value)
        && wanted.every(word => words(row).includes(word)));
      found.textContent = `${shown.length} of ${rows.length} rows that changed`;
      list.replaceChildren(...shown.slice(0, most).map(example));
      more.hidden = shown.length <= most;
    };
    more.onclick = () => { most += 50; show(); };
    for (const control of [search, ...selects]) control.oninput = () => { most = 20; show(); };
    place.append(made("div", { className: "controls" }, [search, ...selects]), found, list, more);
    return show;
  };

  // ---- sections: switches for the methods, panels that are drawn when they come near
  const redraws = [], redraw = () => redraws.forEach(draw => draw());
  const near = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => {
    const place = entry.target;
    near.unobserve(place);
    place.draw().then(() => place.on("plotly_relayout", place.draw));
    redraws.push(place.draw);
  }), { rootMargin: "600px" });
  all("main > section").forEach((section, i) => {
    const hidden = new Set(), { methods, parts } = data[i];
    const switches = section.querySelector(".methods");
    for (const [method, look] of Object.entries(methods)) {
      const swatch = made("i", { innerHTML: drawn(look) }), button = made("button", { ariaPressed: "true" }, [swatch, method]);
      redraws.push(() => swatch.style.setProperty("--colour", seen(look.colour)));
      button.onclick = () => {
        hidden.delete(method) || hidden.add(method);
        button.ariaPressed = String(!hidden.has(method));
        all("tr[data-method]", section).filter(row => row.dataset.method === method).forEach(row => { row.hidden = hidden.has(method); });
        redraw();
      };
      switches.append(button);
    }
    all("article", section).forEach((article, j) => {
      const { examples } = parts[j];
      if (examples) redraws.push(browse(article.querySelector(".examples"), examples, hidden));
      all("figure", article).forEach((figure, k) => {
        const panels = figure.querySelector(".panels"), { panels: contents, key } = parts[j].figures[k];
        figure.querySelector(".key").append(...key.map(text => made("span", { textContent: text })));
        contents.forEach((panel, n) => {
          const place = made("div", { className: "plot" }), whole = made("div", { className: panel.map ? "panel map" : "panel" });
          whole.append(made("p", { className: "title", textContent: panel.title }), place);
          whole.style.setProperty("--share", panel.width);
          if (panel.map) whole.style.setProperty("--columns", panel.map.columns.length);
          place.style.height = `${panel.map ? (n + 1 < contents.length ? 26 : 92) + Math.max(36, ...panel.map.rows.map(row => 8 + 14 * wrapped(row).length)) * panel.map.rows.length : Math.max(panel.height - 30, 200)}px`;
          place.draw = () => {
            const [traces, layout] = drawing(panel, hidden, getComputedStyle(panels), n + 1 === contents.length);
            for (const axis of panel.map ? [] : ["xaxis", "yaxis"]) {  // where it was zoomed it stays so, with ticks of its own
              const { range, ticks, stretched } = panel[axis[0]], now = place.layout?.[axis].range ?? range;
              Object.assign(layout[axis], { range: now, ...(ticks && !stretched && String(now) !== String(range) && { tickmode: "auto" }) });
            }
            return Plotly.react(place, traces, layout, config);
          };
          panels.append(whole);
          near.observe(place);
        });
      });
    });
    redraw();
  });
  root.style.scrollPaddingTop = `${8 + Math.max(...all(".methods").map(bar => bar.offsetHeight))}px`;  // they stay at the top
  system.addEventListener("change", redraw);
  document.getElementById("theme").onclick = () => {
    root.style.colorScheme = isDark() ? "light" : "dark";
    redraw();
  };

  // ---- where in the contents the reader is
  const links = new Map(all("nav a").map(link => [link.hash.slice(1), link]));
  const reading = new IntersectionObserver(entries => entries.forEach(entry => {
    links.get(entry.target.id)?.classList.toggle("here", entry.isIntersecting);
  }), { rootMargin: "-20% 0px -70% 0px" });
  all("main article").forEach(article => reading.observe(article));
})();
