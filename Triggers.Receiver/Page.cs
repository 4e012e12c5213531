namespace Triggers.Receiver;

/// <summary>The page that shows what came. It loads nothing from anywhere else.</summary>
internal static class Page
{
    public const string Html = """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>Receiver</title>
        <link rel="icon" href="data:,">
        <style>
          :root { color-scheme: light dark; --line: #8884; --soft: #8882; --good: #1a7f37; --bad: #c62f2f; }
          * { box-sizing: border-box; }
          body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem; font: 15px/1.5 system-ui, sans-serif; }
          header { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: baseline; border-bottom: 1px solid var(--line); padding-bottom: .75rem; }
          h1 { font-size: 1.3rem; margin: 0; }
          #state { flex: 1; opacity: .75; }
          button { font: inherit; padding: .2rem .8rem; border: 1px solid var(--line); border-radius: .4rem; background: var(--soft); color: inherit; cursor: pointer; }
          details { border-bottom: 1px solid var(--line); }
          summary { display: grid; grid-template-columns: 7.5rem 6.5rem 3rem 1fr; gap: .75rem; padding: .5rem 0; cursor: pointer; list-style: none; }
          summary::-webkit-details-marker { display: none; }
          summary span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
          .true { color: var(--good); font-weight: 600; } .false { color: var(--bad); font-weight: 600; } .null { opacity: .6; }
          pre { margin: 0 0 .75rem; padding: .75rem; overflow-x: auto; background: var(--soft); border-radius: .4rem; font-size: 13px; white-space: pre-wrap; overflow-wrap: anywhere; }
          .empty { opacity: .75; padding: 2rem 0; }
        </style>
        </head>
        <body>
        <header><h1>Receiver</h1><span id="state" role="status"></span><button id="clear" type="button">Clear</button></header>
        <main id="list"></main>
        <script>
          const list = document.getElementById('list'), state = document.getElementById('state');
          let shown = '';
          const element = (name, text, className) => Object.assign(document.createElement(name), { textContent: text ?? '', className: className ?? '' });
          const pretty = body => { try { return JSON.stringify(JSON.parse(body), null, 2); } catch { return body; } };
          const signature = { true: 'verified', false: 'not verified', null: 'no secret' };
          function row(item) {
            const details = element('details'), summary = element('summary');
            const type = (() => { try { return JSON.parse(item.body).type; } catch { return null; } })();
            summary.append(
              element('span', new Date(item.receivedAt).toLocaleTimeString([],
                  { hour12: false, hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3 })),
              element('span', signature[item.verified], String(item.verified)),
              element('span', item.status),
              element('span', (type ? type + '  ' : '') + item.path));
            const headers = Object.entries(item.headers).map(([name, value]) => name + ': ' + value).join('\n');
            details.append(summary, element('pre', item.method + ' ' + item.path + '\n' + headers), element('pre', pretty(item.body)));
            return details;
          }
          async function show() {
            try {
              const answer = await (await fetch('received?limit=100')).json();
              state.textContent = answer.total + ' received, ' + answer.secrets + (answer.secrets === 1 ? ' secret known' : ' secrets known');
              const now = answer.total + '/' + (answer.items[0]?.receivedAt ?? '');
              if (now !== shown) {
                const open = list.querySelectorAll('details[open]').length;
                if (open === 0 || answer.total === 0) {
                  shown = now;
                  list.replaceChildren(...(answer.items.length ? answer.items.map(row) : [element('p',
                      'Nothing yet. Send webhooks to ' + location.origin + '/hook', 'empty')]));
                } else {
                  state.textContent += ' · close the open one to see the newer';
                }
              }
            } catch { state.textContent = 'the receiver does not answer'; }
            setTimeout(show, 1000);
          }
          document.getElementById('clear').addEventListener('click', () => fetch('received', { method: 'DELETE' }));
          show();
        </script>
        </body>
        </html>
        """;
}
