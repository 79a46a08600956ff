// Serves the files in /srv on PORT: an app of one page, whose other addresses are the page's own.
//
// The files are those of an image: they are listed once, and a request is looked up among them. No name that is not there is ever opened.
import { createReadStream, readdirSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname } from 'node:path';
import { pipeline } from 'node:stream';

const TYPES = {
  '.html': 'text/html; charset=utf-8', '.htm': 'text/html; charset=utf-8', '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8', '.mjs': 'text/javascript; charset=utf-8', '.json': 'application/json',
  '.map': 'application/json', '.webmanifest': 'application/manifest+json', '.wasm': 'application/wasm',
  '.txt': 'text/plain; charset=utf-8', '.md': 'text/plain; charset=utf-8', '.xml': 'application/xml', '.pdf': 'application/pdf',
  '.svg': 'image/svg+xml', '.png': 'image/png', '.jpg': 'image/jpeg', '.jpeg': 'image/jpeg', '.gif': 'image/gif',
  '.webp': 'image/webp', '.avif': 'image/avif', '.ico': 'image/x-icon', '.woff': 'font/woff', '.woff2': 'font/woff2',
  '.ttf': 'font/ttf', '.otf': 'font/otf', '.mp3': 'audio/mpeg', '.mp4': 'video/mp4', '.webm': 'video/webm',
};

const files = new Map();
function list(folder) {
  for (const entry of readdirSync('/srv' + folder, { withFileTypes: true })) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) list(path);
    if (!entry.isFile()) continue;
    const { size, mtimeMs } = statSync('/srv' + path);
    files.set(path, { path, size, tag: `"${size.toString(16)}-${Math.floor(mtimeMs).toString(16)}"` });
  }
}
list('');

// What is asked for; else, for somebody who is on the way to a page, the one page.
function find(path, accept = '*/*') {
  const found = files.get(path.endsWith('/') ? `${path}index.html` : path);
  const asset = extname(path).toLowerCase() in TYPES || /^\/(assets|static)\//.test(path);
  return found ?? (asset || !/text\/html|\*\/\*/.test(accept) ? undefined : files.get('/index.html'));
}

// One range of bytes (RFC 9110, section 14.2): undefined for the whole, null for one that cannot be had.
function range(header, size) {
  const [, from, to] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? [];
  if (!from && !to) return undefined;
  const start = from ? Number(from) : Math.max(0, size - Number(to));
  const end = from && to ? Math.min(Number(to), size - 1) : size - 1;
  return start <= end ? { start, end } : null;
}

function say(res, status, text, headers = {}) {
  res.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8', 'Cache-Control': 'no-cache', ...headers });
  res.end(`${text}\n`);
}

function answer(req, res) {
  if (req.method !== 'GET' && req.method !== 'HEAD') return say(res, 405, 'Only GET and HEAD', { Allow: 'GET, HEAD' });
  let path;
  try { path = decodeURIComponent(req.url.split('?', 1)[0]); } catch { return say(res, 400, 'Bad request'); }
  const file = find(path, req.headers.accept);
  if (!file) return say(res, 404, 'Not found');
  const named = /^\/(assets|static)\/.*[.-][\w-]{8,}\./.test(file.path); // a hash in the name: another content has another name
  const headers = {
    'Content-Type': TYPES[extname(file.path).toLowerCase()] ?? 'application/octet-stream', ETag: file.tag, 'Accept-Ranges': 'bytes',
    'Cache-Control': named ? 'public, max-age=31536000, immutable' : 'no-cache', 'X-Content-Type-Options': 'nosniff',
  };
  const known = (req.headers['if-none-match'] ?? '').split(',').map((tag) => tag.trim().replace(/^W\//, ''));
  if (known.includes(file.tag) || known.includes('*')) return res.writeHead(304, headers).end();
  const part = 'if-range' in req.headers && req.headers['if-range'] !== file.tag ? undefined : range(req.headers.range, file.size);
  if (part === null) return say(res, 416, 'No such range', { 'Content-Range': `bytes */${file.size}` });
  if (part) headers['Content-Range'] = `bytes ${part.start}-${part.end}/${file.size}`;
  headers['Content-Length'] = part ? part.end - part.start + 1 : file.size;
  res.writeHead(part ? 206 : 200, headers);
  if (req.method === 'HEAD') return res.end();
  pipeline(createReadStream('/srv' + file.path, part), res, () => {}); // who hangs up ends it
}

const server = createServer(answer);
server.listen(Number(process.env.PORT) || 8080);
process.on('SIGTERM', () => {
  server.close(() => process.exit(0)); // once what is under way is answered
  server.closeIdleConnections();
  setTimeout(() => process.exit(0), 8000).unref();
});
