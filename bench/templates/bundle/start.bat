@echo off
rem The first start installs from this folder, the next ones open JupyterLab. "start.bat --check" tries everything.
rem A program that crashes ends with a negative number, which "if errorlevel 1" takes for success.
setlocal
pushd "%~dp0"
py -@MINOR@ -c "" >nul 2>nul
if %errorlevel% equ 0 (
  py -@MINOR@ start.py %*
  goto end
)
python -c "" >nul 2>nul
if %errorlevel% equ 0 (
  python start.py %*
  goto end
)
echo No Python was found. Install Python @MINOR@ for Windows (64 bit) and start again.
cmd /c exit 1
:end
set code=%errorlevel%
if %code% neq 0 if /i not "%~1"=="--check" pause
popd
exit /b %code%
