-- The Python package, inside a function: loaded once a session, no file but this script. A package of this name on the
-- server, or one that another function of the session has imported, never stands in for it.
--
-- load() has it twice: as bytecode of one version of Python, which compile() writes there, and as source, in a comment.
-- A session takes the source only where it needs it: to compile it, or to show lines of it in a traceback.

CREATE FUNCTION audius_challenges.load()
RETURNS void
LANGUAGE plpython3u
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $package$
import sys

NAME = 'audius_challenges'
DIGEST = '@PACKAGE_DIGEST@'
BYTECODE = '', '', {}

loaded = GD.get(NAME)
names = [name for name in sys.modules if name.partition('.')[0] == NAME]
if getattr(loaded, 'digest', None) == DIGEST and all(
    getattr(sys.modules[name], '__loader__', None) is loaded for name in names
):
    if sys.meta_path[0] is not loaded:
        sys.meta_path[:] = [loaded, *(finder for finder in sys.meta_path if finder is not loaded)]
    return

import ast
import base64
import importlib.machinery
import importlib.util
import marshal
import zlib


class PackageFinder:
    """Imports the package from the bytecode, or else from the source; tracebacks show its lines."""

    digest = DIGEST

    def __init__(self):
        self.is_compiled = BYTECODE[:2] == (DIGEST, importlib.util.MAGIC_NUMBER.hex())
        self.bytecode = BYTECODE[2] if self.is_compiled else {}
        self.sources = {} if self.is_compiled else self.read_sources()[1]

    def read_sources(self):
        (load,) = plpy.execute("SELECT prosrc FROM pg_proc WHERE oid = 'audius_challenges.load()'::regprocedure")
        return ast.literal_eval(load['prosrc'].rstrip().rpartition('\n# ')[2])

    def find_spec(self, name, path=None, target=None):
        source_path = self.path_of(name)
        if source_path is None:
            return None
        is_package = source_path.endswith('/__init__.py')
        return importlib.machinery.ModuleSpec(name, self, origin=source_path, is_package=is_package)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        path = self.path_of(module.__name__)
        if self.is_compiled:
            code = marshal.loads(zlib.decompress(base64.b64decode(self.bytecode[path])))
        else:
            code = compile(self.sources[path], path, 'exec')
        exec(code, module.__dict__)

    def get_source(self, name):
        if not self.sources:
            digest, sources = self.read_sources()
            # After an update those are there that the session will go by from its next call on.
            self.sources = sources if digest == DIGEST else {}
        return self.sources.get(self.path_of(name))

    def path_of(self, name):
        path = name.replace('.', '/')
        known = self.bytecode or self.sources
        return next((each for each in (path + '.py', path + '/__init__.py') if each in known), None)


for name in names:
    del sys.modules[name]
GD[NAME] = PackageFinder()
sys.meta_path[:] = [GD[NAME], *(finder for finder in sys.meta_path if type(finder).__name__ != 'PackageFinder')]
# ('@PACKAGE_DIGEST@', @PACKAGE_SOURCES@)
$package$;

COMMENT ON FUNCTION audius_challenges.load() IS
'Makes the extension''s Python package importable in this session, in the version of this database; '
'called by the other functions';

CREATE FUNCTION audius_challenges.compile()
RETURNS void
LANGUAGE plpython3u
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
import base64
import importlib.util
import marshal
import re
import zlib

# An update under way ends first, and none begins before the end.
plpy.execute("SELECT FROM pg_extension WHERE extname = 'audius_challenges' FOR SHARE")
plpy.execute('SELECT audius_challenges.load()')
digest, sources = GD['audius_challenges'].read_sources()
bytecode = {
    path: base64.b64encode(zlib.compress(marshal.dumps(compile(source, path, 'exec')))).decode()
    for path, source in sources.items()
}
line = f'BYTECODE = {(digest, importlib.util.MAGIC_NUMBER.hex(), bytecode)}'

load = plpy.execute("SELECT pg_get_functiondef('audius_challenges.load()'::regprocedure) AS definition")[0]
plpy.execute(re.sub('^BYTECODE = .*$', lambda _: line, load['definition'], count=1, flags=re.MULTILINE))
$function$;

COMMENT ON FUNCTION audius_challenges.compile() IS
'Keeps the extension''s Python package as bytecode of this server''s Python, so that a session loads it faster. '
'CREATE EXTENSION and ALTER EXTENSION UPDATE do so; call it when the server has got another Python, as by pg_upgrade';

SELECT audius_challenges.compile();
