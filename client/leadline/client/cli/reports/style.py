"""The style of reports: on light and dark screens, on phones and on paper.

`--plain-0` and so on are the figures' colours without batch norm, `--norm-0` and so on those with
it. They are lighter in the dark theme.
"""

STYLE = """
:root { color-scheme: light; --ink: #1c1c1c; --paper: #fff; --line: #c8c8c8; --cell: #56b4e9;
  --quiet: #595959; --focus: #0072b2; --plain-0: #0072b2; --plain-1: #56b4e9; --plain-2: #009e73;
  --norm-0: #d55e00; --norm-1: #e69f00; --norm-2: #cc79a7; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --ink: #e8e8e8; --paper: #16181b; --line: #474b50; --cell: #0072b2;
    --quiet: #a9adb3; --focus: #56b4e9; --plain-0: #56b4e9; --plain-1: #a9d8f5; --plain-2: #2fc9a0;
    --norm-0: #f28a3c; --norm-1: #f0c04a; --norm-2: #d992bb; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 76rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; }
nav a { margin-right: 1rem; }
a { color: var(--focus); }
h2 { border-top: 1px solid var(--line); padding-top: 1rem; margin-top: 2.5rem; }
h4 { margin: 0.8rem 0 0.3rem; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 1px; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; margin: 0.5rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; text-align: left; white-space: nowrap; overflow-wrap: normal;
  border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.1rem 1rem; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
.confusion td { padding: 0; text-align: center; border: 1px solid var(--line);
  background: color-mix(in srgb, var(--cell) var(--share, 0%), var(--paper)); }
.confusion button { width: 100%; min-width: 2.6rem; padding: 0.45rem 0.2rem; border: 0;
  cursor: pointer; background: none; color: inherit; font: inherit; }
.confusion button:hover { text-decoration: underline; }
.row { display: flex; flex-wrap: wrap; gap: 0.6rem; margin-bottom: 0.6rem; }
.example { margin: 0; width: 8.5rem; font-size: 0.85rem; line-height: 1.35;
  white-space: pre-line; }
.example img { image-rendering: pixelated; display: block; margin-bottom: 0.25rem; }
.images { max-width: min(40rem, 92vw); color: var(--ink); background: var(--paper);
  border: 1px solid var(--line); padding: 0.5rem 1.2rem 1rem; }
.images::backdrop { background: rgb(0 0 0 / 40%); }
.figure { margin: 0.5rem 0; }
.figure text { fill: var(--ink); }
.figure svg { display: block; width: 100%; height: auto; max-width: 52rem; margin: 0 auto; }
summary { cursor: pointer; font-weight: 600; padding: 0.3rem 0; }
@media (max-width: 34rem) {
  .figure svg { min-width: 34rem; }
  body { padding: 0.5rem 0.8rem 3rem; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: 0.4rem; }
}
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
