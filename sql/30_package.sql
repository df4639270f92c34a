-- The Python package, inside a function: loaded once a session, no file but this script. A package of this name on the
-- server, or one that another function of the session has imported, never stands in for it.

CREATE FUNCTION audius_challenges.load()
RETURNS void
LANGUAGE plpython3u
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $package$
import sys

NAME = 'audius_challenges'
DIGEST = '@PACKAGE_DIGEST@'

loaded = GD.get(NAME)
names = [name for name in sys.modules if name.partition('.')[0] == NAME]
if getattr(loaded, 'digest', None) == DIGEST and all(
    getattr(sys.modules[name], '__loader__', None) is loaded for name in names
):
    if sys.meta_path[0] is not loaded:
        sys.meta_path[:] = [loaded, *(finder for finder in sys.meta_path if finder is not loaded)]
    return

import importlib.machinery

SOURCES = @PACKAGE_SOURCES@


class PackageFinder:
    """Imports the package from the sources above; tracebacks show their lines."""

    digest = DIGEST

    def find_spec(self, name, path=None, target=None):
        source_path = self.path_of(name)
        if source_path is None:
            return None
        is_package = source_path.endswith('/__init__.py')
        return importlib.machinery.ModuleSpec(name, self, origin=source_path, is_package=is_package)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(self.get_source(module.__name__), self.path_of(module.__name__), 'exec'), module.__dict__)

    def get_source(self, name):
        return SOURCES[self.path_of(name)]

    def path_of(self, name):
        path = name.replace('.', '/')
        return next((each for each in (path + '.py', path + '/__init__.py') if each in SOURCES), None)


for name in names:
    del sys.modules[name]
GD[NAME] = PackageFinder()
sys.meta_path[:] = [GD[NAME], *(finder for finder in sys.meta_path if type(finder).__name__ != 'PackageFinder')]
$package$;

COMMENT ON FUNCTION audius_challenges.load() IS
'Makes the extension''s Python package importable in this session, in the version of this database; '
'called by the other functions';
