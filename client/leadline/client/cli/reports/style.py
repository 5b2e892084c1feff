"""How reports look: on light and dark screens, and on paper.

`--c0` and so on are the figures' colours, lighter where the page is dark.
"""

STYLE = """
:root { color-scheme: light; --ink: #1c1c1c; --paper: #fff; --line: #c8c8c8; --cell: #56b4e9;
  --quiet: #595959; --focus: #0072b2; --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7;
  --c4: #e69f00; --c5: #56b4e9; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --ink: #e8e8e8; --paper: #16181b; --line: #474b50; --cell: #0072b2;
    --quiet: #a9adb3; --focus: #56b4e9; --c0: #3d9be0; --c1: #f28a3c; --c2: #2fc9a0; --c3: #d992bb;
    --c4: #f0b73a; --c5: #8fd0f5; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 68rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
nav a { margin-right: 1rem; }
a { color: var(--focus); }
h2 { border-top: 1px solid var(--line); padding-top: 1rem; margin-top: 2.5rem; }
h4 { margin: 0.8rem 0 0.3rem; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 1px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.5rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; text-align: left; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 1rem; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
.confusion td { padding: 0; text-align: center; border: 1px solid var(--line);
  background: color-mix(in srgb, var(--cell) var(--share, 0%), var(--paper)); }
.confusion button { width: 100%; min-width: 2.6rem; padding: 0.45rem 0.2rem; border: 0;
  cursor: pointer; background: none; color: inherit; font: inherit; }
.confusion button:hover { text-decoration: underline; }
.row { display: flex; flex-wrap: wrap; gap: 0.6rem; margin-bottom: 0.6rem; }
.example { margin: 0; width: 7.5rem; font-size: 0.85rem; }
.example img { width: 96px; height: 96px; image-rendering: pixelated; display: block; }
.images { max-width: 36rem; color: var(--ink); background: var(--paper);
  border: 1px solid var(--line); padding: 0.5rem 1.2rem 1rem; }
.images::backdrop { background: rgb(0 0 0 / 40%); }
.figure { margin: 0.5rem 0; }
.figure text { fill: var(--ink); }
.figure svg { display: block; width: 100%; height: auto; max-width: 52rem; margin: 0 auto; }
summary { cursor: pointer; font-weight: 600; padding: 0.3rem 0; }
@media print {
  :root { --ink: #000; --line: #999; --quiet: #444; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .images { display: none; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .wide { overflow: visible; }
  h2, h3, h4, summary { break-after: avoid; }
  tr, .figure, .row, .example { break-inside: avoid; }
  .confusion td { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
